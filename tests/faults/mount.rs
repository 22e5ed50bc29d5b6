//! File systems of our own, to be filled and broken. They need root, as Docker does.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tests::wait;

/// What it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tmpfs,
    /// In a file, by a loop device.
    Ext4,
}

/// A file system, mounted; gone when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    dir: TempDir,
    kind: Kind,
}

impl Mount {
    /// Mounts a new one of so many MiB, with a directory `data` in it that is its owner's alone.
    pub(crate) fn new(kind: Kind, mib: u32) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("outhaul-faults-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let mount = Self { dir, kind };
        std::fs::create_dir(mount.root()).unwrap();
        let image = mount.image();
        if let Kind::Ext4 = kind {
            File::create(&image)
                .unwrap()
                .set_len(u64::from(mib) << 20)
                .unwrap();
            run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()]);
        }
        mount.mount(&format!("size={mib}m"), "");
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(mount.data())
            .unwrap();
        mount
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The directory in it.
    pub(crate) fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Fills it to the last byte, at once.
    pub(crate) fn fill(&self) {
        let mut filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for step in [8 << 20, 1 << 20, 64 << 10, 4 << 10, 512, 1] {
            let bytes = vec![0xA5; step];
            loop {
                match filler.write(&bytes) {
                    Ok(count) if count == step => {}
                    _ => break,
                }
            }
        }
        // Space that is spoken for, and not yet taken, shows here.
        let _ = filler.sync_all();
    }

    /// Takes so many MiB of it.
    pub(crate) fn take(&self, mib: usize) {
        let mut filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for _ in 0..mib {
            filler.write_all(&vec![0xA5; 1 << 20]).unwrap();
        }
        filler.sync_all().unwrap();
    }

    /// Gives back what was taken.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
        // Blocks of a removed file are free once that is on the disk.
        File::open(self.root()).unwrap().sync_all().unwrap();
    }

    /// What is free on it, in bytes.
    pub(crate) fn free_bytes(&self) -> u64 {
        let seen = rustix::fs::statvfs(self.root()).unwrap();
        seen.f_bavail * seen.f_frsize
    }

    /// From now on nothing can be written, as the kernel decides where a disk is broken.
    pub(crate) fn abort(&self) {
        run(
            "mount",
            &["-o", "remount,abort", &self.root().to_string_lossy()],
        );
    }

    /// Mounts it anew, on such terms.
    pub(crate) fn mount_again(&self, options: &str) {
        run("umount", &[&self.root().to_string_lossy()]);
        // A container that is being made sees, for a moment, what was mounted then. Until it lets go, this would be the old one again, with
        // whatever is wrong with it; its loop device goes with it.
        wait::until("the file system to be gone", || {
            (!self.is_on_a_loop_device()).then_some(())
        });
        self.mount("", options);
    }

    fn mount(&self, size: &str, options: &str) {
        let root = self.root();
        let root = root.to_string_lossy();
        let image = self.image();
        match self.kind {
            Kind::Tmpfs => run("mount", &["-t", "tmpfs", "-o", size, "outhaul", &root]),
            Kind::Ext4 => {
                let options = format!("loop{options}");
                run("mount", &["-o", &options, &image.to_string_lossy(), &root]);
            }
        }
    }

    fn is_on_a_loop_device(&self) -> bool {
        let image = self.image();
        let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
        devices
            .filter_map(|device| {
                std::fs::read_to_string(device.path().join("loop/backing_file")).ok()
            })
            .any(|file| Path::new(file.trim_end()) == image)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn filler(&self) -> PathBuf {
        self.root().join("filler")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whoever still has it open is on the way out.
        let _ = Command::new("umount").arg("-l").arg(self.root()).status();
    }
}

/// Runs a program of the system, which must be there and succeed: a fault that cannot be made is a failed test.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}; `tests/run.sh` installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {said}(this needs root)",
        arguments.join(" ")
    );
}

/// Puts `link` in the place of a directory.
pub(crate) fn link(directory: &Path, link: &Path) {
    std::os::unix::fs::symlink(directory, link).unwrap();
}

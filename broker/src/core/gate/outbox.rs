//! Commands on their way to a host: at QoS 1, no more unacknowledged than it takes, oldest first.
//!
//! What is here is lost with the connection, and that is no loss: a command stays open in the journal until a report settles it.

use std::collections::VecDeque;

use protocol::mqtt::{Delivery, PacketId, Publish, Version};

/// Output that waits to be written, in bytes, past which no further command is encoded: it would only be copied early.
pub const OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// Commands of one host.
#[derive(Default)]
pub(super) struct Outbox {
    /// Open when the host subscribed; no bound of its own but what the store holds open for one host.
    backlog: VecDeque<Vec<u8>>,
    /// Came since. At most `window`.
    live: VecDeque<Vec<u8>>,
    /// Sent and not acknowledged. At most `window`.
    unacknowledged: VecDeque<PacketId>,
    /// The last packet identifier given out.
    last_id: u16,
}

/// The host does not take its commands as fast as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outbox {
    /// Starts with what is open.
    pub(super) fn open(&mut self, backlog: Vec<Vec<u8>>) {
        self.backlog = backlog.into();
        self.live.clear();
    }

    /// Forgets what was not sent.
    pub(super) fn close(&mut self) {
        self.backlog = VecDeque::new();
        self.live = VecDeque::new();
    }

    /// Takes a command that came live.
    pub(super) fn push(&mut self, command: Vec<u8>, window: usize) -> Result<(), Full> {
        // Published between attaching and reading the journal, it is in both.
        if self.backlog.contains(&command) {
            return Ok(());
        }
        if self.live.len() >= window {
            return Err(Full);
        }
        self.live.push_back(command);
        Ok(())
    }

    /// Notes an acknowledgement, in whatever order. One for nothing we sent is no news.
    pub(super) fn acknowledge(&mut self, id: PacketId) {
        if let Some(at) = self.unacknowledged.iter().position(|one| *one == id) {
            self.unacknowledged.remove(at);
        }
    }

    /// Writes what may be sent now; gives how many commands were larger than the client takes and are skipped (MQTT 5.0
    /// §3.1.2.11.4).
    pub(super) fn write(
        &mut self,
        topic: &str,
        window: usize,
        packet_bytes_max: usize,
        output: &mut Vec<u8>,
    ) -> usize {
        let mut skipped = 0;
        while self.unacknowledged.len() < window && output.len() < OUTPUT_BYTES_MAX {
            let next = self.backlog.pop_front().or_else(|| self.live.pop_front());
            let Some(command) = next else { break };
            let id = self.free_id();
            let before = output.len();
            let publish = Publish::new(topic, Delivery::at_least_once(id), &command);
            let written = publish.encode(Version::V5, output);
            if written.is_err() || output.len() - before > packet_bytes_max {
                output.truncate(before);
                skipped += 1;
                continue;
            }
            self.unacknowledged.push_back(id);
        }
        skipped
    }

    /// The next identifier that is not in use; of 65,535 at most a window's worth is.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && !self.unacknowledged.contains(&id)
            {
                return id;
            }
        }
    }
}

/// Counts only: commands are not for the log.
impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("backlog", &self.backlog.len())
            .field("live", &self.live.len())
            .field("unacknowledged", &self.unacknowledged.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::mqtt::{ServerPacket, decode_server, frame};

    const TOPIC: &str = "v1/edge-1/commands";

    /// Identifier and first payload byte of every publish written.
    fn sent(mut output: &[u8]) -> Vec<(u16, u8)> {
        let mut all = Vec::new();
        while let Some(frame) = frame(output, usize::MAX).unwrap() {
            let ServerPacket::Publish(publish) = decode_server(&frame, Version::V5).unwrap() else {
                panic!("not a publish");
            };
            assert_eq!((publish.topic, publish.retain), (TOPIC, false));
            all.push((
                publish.delivery.packet_id().unwrap().get(),
                publish.payload[0],
            ));
            output = &output[frame.total_bytes()..];
        }
        all
    }

    fn write(outbox: &mut Outbox, window: usize) -> Vec<(u16, u8)> {
        let mut output = Vec::new();
        assert_eq!(outbox.write(TOPIC, window, usize::MAX, &mut output), 0);
        sent(&output)
    }

    #[test]
    fn what_was_open_goes_before_what_came_since_and_twice_is_once() {
        let mut outbox = Outbox::default();
        outbox.open(vec![vec![1], vec![2], vec![3]]);
        outbox.push(vec![3], 8).unwrap();
        outbox.push(vec![4], 8).unwrap();
        assert_eq!(write(&mut outbox, 8), [(1, 1), (2, 2), (3, 3), (4, 4)]);
        assert_eq!(write(&mut outbox, 8), []);
    }

    #[test]
    fn a_window_of_one_sends_one_at_a_time() {
        let mut outbox = Outbox::default();
        outbox.open(vec![vec![1], vec![2]]);
        assert_eq!(write(&mut outbox, 1), [(1, 1)]);
        assert_eq!(write(&mut outbox, 1), []);
        outbox.acknowledge(PacketId::new(9).unwrap());
        assert_eq!(write(&mut outbox, 1), []);
        outbox.acknowledge(PacketId::new(1).unwrap());
        assert_eq!(write(&mut outbox, 1), [(2, 2)]);
    }

    #[test]
    fn acknowledgements_may_come_in_any_order() {
        let mut outbox = Outbox::default();
        outbox.open((1..=6).map(|byte| vec![byte]).collect());
        assert_eq!(write(&mut outbox, 3).len(), 3);
        for id in [2, 3, 1] {
            outbox.acknowledge(PacketId::new(id).unwrap());
        }
        assert_eq!(write(&mut outbox, 3), [(4, 4), (5, 5), (6, 6)]);
    }

    #[test]
    fn an_identifier_in_use_is_passed_over_and_zero_never_given() {
        let mut outbox = Outbox {
            last_id: u16::MAX - 1,
            ..Outbox::default()
        };
        outbox.open(vec![vec![1], vec![2]]);
        assert_eq!(write(&mut outbox, 8), [(u16::MAX, 1), (1, 2)]);
        outbox.last_id = 0;
        outbox.push(vec![3], 8).unwrap();
        assert_eq!(write(&mut outbox, 8), [(2, 3)]);
    }

    #[test]
    fn live_commands_past_the_window_are_too_many() {
        let mut outbox = Outbox::default();
        for byte in 0..3 {
            outbox.push(vec![byte], 3).unwrap();
        }
        assert_eq!(outbox.push(vec![9], 3), Err(Full));
    }

    #[test]
    fn a_command_larger_than_the_client_takes_is_skipped_and_the_next_is_sent() {
        let mut outbox = Outbox::default();
        outbox.open(vec![vec![1; 1_000], vec![2]]);
        let mut output = Vec::new();
        assert_eq!(outbox.write(TOPIC, 8, 256, &mut output), 1);
        assert_eq!(sent(&output), [(2, 2)]);
    }

    #[test]
    fn output_that_nobody_reads_stops_the_encoding() {
        let mut outbox = Outbox::default();
        outbox.open((0..100).map(|_| vec![0; 60_000]).collect());
        let mut output = Vec::new();
        outbox.write(TOPIC, 128, usize::MAX, &mut output);
        assert!(output.len() < OUTPUT_BYTES_MAX + 64 * 1024);
        assert_eq!(sent(&output).len(), 3);
    }
}

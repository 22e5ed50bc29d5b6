//! Image references, and which of them the owner allows.
//!
//! An engine also takes an image's short id where a name is expected. So that nobody can pass an image off as another, a
//! reference is made whole here (a name without a tag gets `:latest`) before it is compared, and only the whole form is
//! given to the engine.

use protocol::command::is_image;

/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// What an image is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The engine's own id, `sha256:…`.
    Id(String),
    /// `name:tag`.
    Tag {
        /// The repository.
        name: String,
        /// The tag.
        tag: String,
    },
    /// `name@sha256:…`; a tag beside a digest says nothing and is dropped.
    Digest {
        /// The repository.
        name: String,
        /// `sha256:…`.
        digest: String,
    },
}

/// Not an image reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an image reference: use name:tag, name@sha256:… or sha256:…")]
pub struct BadReference;

impl Reference {
    /// Reads a reference and makes it whole.
    ///
    /// # Errors
    /// [`BadReference`] for what is none, and for a digest that is not a whole SHA-256.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        if !is_image(text) {
            return Err(BadReference);
        }
        if is_digest(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(name);
        let is_name = !name.is_empty()
            && name != "sha256"
            && !name.contains('@')
            // A colon is left in front of a registry's port only.
            && !name.rsplit('/').next().is_some_and(|last| last.contains(':'))
            && !name.ends_with(['/', ':'])
            && !name.bytes().any(|b| b.is_ascii_uppercase());
        let is_tag = tag.is_none_or(|tag| !tag.is_empty());
        if !is_name || !is_tag {
            return Err(BadReference);
        }
        let name = name.to_owned();
        match digest {
            Some(digest) if is_digest(digest) => Ok(Self::Digest {
                name,
                digest: digest.to_owned(),
            }),
            Some(_) => Err(BadReference),
            None => Ok(Self::Tag {
                name,
                tag: tag.unwrap_or("latest").to_owned(),
            }),
        }
    }

    /// The whole form, for comparing and for the engine.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Id(id) => id.clone(),
            Self::Tag { name, tag } => format!("{name}:{tag}"),
            Self::Digest { name, digest } => format!("{name}@{digest}"),
        }
    }
}

/// One entry of the policy's `images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRule {
    /// This image and no other, by the engine's id or the registry's digest.
    Digest(String),
    /// This reference.
    Exact(Reference),
    /// Every reference that starts so.
    Prefix(String),
}

impl ImageRule {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`BadReference`] unless it is a reference, or the beginning of one and a `*`.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        if let Some(prefix) = text.strip_suffix('*') {
            let is_prefix = prefix.is_empty() || is_image(prefix.trim_end_matches(['/', ':', '-']));
            return if is_prefix {
                Ok(Self::Prefix(prefix.to_owned()))
            } else {
                Err(BadReference)
            };
        }
        Ok(match Reference::parse(text)? {
            Reference::Id(id) => Self::Digest(id),
            reference @ (Reference::Tag { .. } | Reference::Digest { .. }) => {
                Self::Exact(reference)
            }
        })
    }

    /// Whether it allows a reference. `image_id` is what the engine says the reference stands for, if it has it.
    #[must_use]
    pub fn allows(&self, reference: &Reference, image_id: Option<&str>) -> bool {
        match self {
            Self::Digest(listed) => {
                image_id == Some(listed)
                    || match reference {
                        Reference::Id(asked) | Reference::Digest { digest: asked, .. } => {
                            asked == listed
                        }
                        Reference::Tag { .. } => false,
                    }
            }
            Self::Exact(listed) => listed == reference,
            Self::Prefix(prefix) => reference.text().starts_with(prefix),
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == DIGEST_DIGITS
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Cuts a tag off. The colon of a registry's port is followed by a slash.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        format!("sha256:{}", String::from(digit).repeat(64))
    }

    #[test]
    fn a_reference_is_made_whole() {
        let a = id('a');
        for (text, whole) in [
            ("tool", "tool:latest".to_owned()),
            ("tool:1", "tool:1".to_owned()),
            ("host:5000/tool", "host:5000/tool:latest".to_owned()),
            ("host:5000/tool:1", "host:5000/tool:1".to_owned()),
            (&a, a.clone()),
            (&format!("x/tool@{a}"), format!("x/tool@{a}")),
            (&format!("x/tool:1@{a}"), format!("x/tool@{a}")),
            // Looks like a short id, and is asked for as a name.
            ("deadbeef", "deadbeef:latest".to_owned()),
        ] {
            assert_eq!(
                Reference::parse(text).map(|r| r.text()),
                Ok(whole),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "a b",
            "../x",
            "Tool",
            "tool:",
            "tool:1:2",
            "sha256:abc",
            "x@sha256:abc",
            "x@y@z",
            "x/",
            &format!("{}@{}", id('a'), id('b')),
        ] {
            assert_eq!(Reference::parse(text), Err(BadReference), "{text}");
        }
    }

    #[test]
    fn an_entry_allows_what_it_names_and_nothing_beside_it() {
        let (a, b) = (id('a'), id('b'));
        let at_a = format!("x/tool@{a}");
        // (entry, asked for, what the engine says it is, allowed)
        for (entry, asked, image, allowed) in [
            ("tool:1", "tool:1", None, true),
            ("tool:1", "tool:2", None, false),
            ("tool:1", "tool", None, false),
            ("tool", "tool:latest", None, true),
            ("tool:1", "evil/tool:1", None, false),
            ("tool:1", "tool:10", None, false),
            ("tool:1", &*a, Some(&*a), false),
            (&*a, "tool:1", Some(&*a), true),
            (&*a, "tool:1", Some(&*b), false),
            (&*a, "tool:1", None, false),
            (&*a, &*a, None, true),
            (&*a, &*at_a, None, true),
            (&*b, &*at_a, None, false),
            (&*at_a, &*at_a, None, true),
            (&*at_a, "x/tool:1", Some(&*a), false),
            ("x/*", "x/tool:1", None, true),
            ("x/*", "xx/tool:1", None, false),
            ("x/tool:*", "x/tool", None, true),
            ("x/tool:*", "x/toolbox:1", None, false),
            ("*", "anything", None, true),
        ] {
            let rule = ImageRule::parse(entry).unwrap();
            let reference = Reference::parse(asked).unwrap();
            assert_eq!(
                rule.allows(&reference, image),
                allowed,
                "{entry} {asked} {image:?}"
            );
        }
    }

    #[test]
    fn an_entry_that_is_none_is_refused() {
        for entry in ["", "a b*", "a*b", "**", "../*"] {
            assert_eq!(ImageRule::parse(entry), Err(BadReference), "{entry}");
        }
    }
}

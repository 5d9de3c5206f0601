//! Which camera is of which kind.

use std::{fmt, str::FromStr};

use crate::farm::Kind;

/// Kinds by turns: `pcmu=2,aac=1,aac16=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

impl Default for Mix {
    /// Half PCMU, a quarter AAC 48 kHz stereo, a quarter AAC 16 kHz mono: what most cameras send, and the two ends of
    /// what cameras with AAC send.
    fn default() -> Self {
        Self(vec![(Kind::Pcmu, 2), (Kind::Aac, 1), (Kind::Aac16, 1)])
    }
}

impl Mix {
    /// The kinds that there are.
    pub fn kinds(&self) -> Vec<Kind> {
        self.0.iter().map(|(kind, _)| *kind).collect()
    }

    /// The kind of a camera. Any number of consecutive cameras is mixed as evenly as it goes.
    pub fn kind(&self, camera: u32) -> Kind {
        let total: u32 = self.0.iter().map(|(_, parts)| parts).sum();
        let turn = camera % total;
        // Whoever is furthest behind its share comes next.
        let mut given = vec![0; self.0.len()];
        let mut kind = self.0[0].0;
        for n in 0..=turn {
            let behind =
                |i: usize| (n + 1) as f64 * f64::from(self.0[i].1) / f64::from(total) - f64::from(given[i]);
            let next = (0..self.0.len()).max_by(|a, b| behind(*a).total_cmp(&behind(*b)));
            // There is at least one kind.
            let next = next.expect("a kind");
            given[next] += 1;
            kind = self.0[next].0;
        }
        kind
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (kind, parts) = part.split_once('=').unwrap_or((part, "1"));
            let parts = parts.parse().ok().filter(|parts| (1..=100).contains(parts));
            Ok((
                kind.parse()?,
                parts.ok_or_else(|| format!("{part:?}: expected KIND=PARTS, such as pcmu=2"))?,
            ))
        };
        text.split(',').map(part).collect::<Result<_, String>>().map(Self)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(kind, n)| format!("{}={n}", kind.as_str())).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_by_turns() {
        let mix = Mix::default();
        assert_eq!(mix.to_string().parse::<Mix>().unwrap(), mix);
        for some in [4, 8, 200] {
            let kinds: Vec<Kind> = (0..some).map(|n| mix.kind(n)).collect();
            let count = |kind| kinds.iter().filter(|k| **k == kind).count() as u32;
            assert_eq!(
                [count(Kind::Pcmu), count(Kind::Aac), count(Kind::Aac16)],
                [some / 2, some / 4, some / 4]
            );
        }
        assert_eq!(mix.kind(0), Kind::Pcmu);
        assert!("opus=1".parse::<Mix>().is_err() && "pcmu=0".parse::<Mix>().is_err());
    }
}

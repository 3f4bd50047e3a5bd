//! One rule of `--translate-uid` or `--translate-gid`: `<type>:<source base>:<target base>:<count>`.

use std::fmt;
use std::str::FromStr;

use super::{Range, To};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Guest,
    Host,
    SquashGuest,
    SquashHost,
    ForbidGuest,
    Map,
}

const KINDS: [(&str, Kind); 6] = [
    ("guest", Kind::Guest),
    ("host", Kind::Host),
    ("squash-guest", Kind::SquashGuest),
    ("squash-host", Kind::SquashHost),
    ("forbid-guest", Kind::ForbidGuest),
    ("map", Kind::Map),
];

/// A rule, checked: its ranges hold ids only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    kind: Kind,
    from: u32,
    to: u32,
    count: u32,
}

/// Not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "\"{0}\" is no kind of translation: it is one of guest, host, squash-guest, squash-host, \
         forbid-guest, map"
    )]
    Kind(String),
    #[error(
        "a translation is TYPE:SOURCE:TARGET:COUNT, forbid-guest is forbid-guest:SOURCE:COUNT"
    )]
    Fields,
    #[error("\"{0}\" is not a number below 4294967295")]
    Number(String),
    #[error("a range of no ids")]
    Empty,
    #[error("the range ends beyond the largest id, 4294967294")]
    End,
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rule, Error> {
        let in_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let separator = text.chars().find(|c| !in_name(*c)).ok_or(Error::Fields)?;
        let mut fields = text.split(separator);
        let name = fields.next().unwrap_or_default().to_lowercase();
        let kind = KINDS.iter().find(|(known, _)| *known == name);
        let (_, kind) = kind.ok_or(Error::Kind(name))?;
        let number = |text: &str| {
            let id = text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| Error::Number(text.to_owned()))
        };
        let numbers = fields.map(number).collect::<Result<Vec<u32>, Error>>()?;
        let (from, to, count) = match (kind, numbers.as_slice()) {
            (Kind::ForbidGuest, [from, count]) => (*from, 0, *count),
            (Kind::ForbidGuest, _) => return Err(Error::Fields),
            (_, [from, to, count]) => (*from, *to, *count),
            _ => return Err(Error::Fields),
        };
        let rule = Rule {
            kind: *kind,
            from,
            to,
            count,
        };
        rule.check()?;
        Ok(rule)
    }
}

impl Rule {
    fn check(&self) -> Result<(), Error> {
        if self.count == 0 {
            return Err(Error::Empty);
        }
        // The largest number means "no id" to the system calls.
        let ends = |base: u32| u64::from(base) + u64::from(self.count) > u64::from(u32::MAX);
        let maps_range = matches!(self.kind, Kind::Guest | Kind::Host | Kind::Map);
        match ends(self.from) || (maps_range && ends(self.to)) {
            true => Err(Error::End),
            false => Ok(()),
        }
    }

    /// What it says of the guest's ids, and of the volume's.
    pub(super) fn ranges(&self) -> (Option<Range>, Option<Range>) {
        let range = |base, to| {
            Some(Range {
                base,
                count: self.count,
                to,
            })
        };
        let (from, to) = (self.from, self.to);
        match self.kind {
            Kind::Guest => (range(from, To::Range(to)), None),
            Kind::Host => (None, range(from, To::Range(to))),
            Kind::SquashGuest => (range(from, To::One(to)), None),
            Kind::SquashHost => (None, range(from, To::One(to))),
            Kind::ForbidGuest => (range(from, To::Forbidden), None),
            Kind::Map => (range(from, To::Range(to)), range(to, To::Range(from))),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = KINDS.iter().find(|(_, kind)| *kind == self.kind);
        let name = known.map_or("", |(name, _)| name);
        write!(f, "{name}:{}", self.from)?;
        if self.kind != Kind::ForbidGuest {
            write!(f, ":{}", self.to)?;
        }
        write!(f, ":{}", self.count)
    }
}

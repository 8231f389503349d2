//! Questions for names: read, and answered without asking anything of the network.
//!
//! A query is a header and one question whose name is written out. That is all that resolvers send,
//! and all that is read: no pointer is followed, nothing behind the question is looked at, and no
//! count in the header decides how much memory is taken, which is why no general parser of DNS
//! messages is used here.
//!
//! References: RFC 1035 4.1; RFC 6891 for the size of answers.

use std::net::Ipv4Addr;

const HEADER: usize = 12;
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
/// Time for which a guest may remember an address, which never changes: in seconds.
const TTL: u32 = 60;

const A: u16 = 1;
const IN: u16 = 1;
const ANY_CLASS: u16 = 255;

/// Question that a query asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// The query up to the end of the question.
    bytes: &'a [u8],
    /// The labels with dots between them, as bytes that the guest chose. `None` if a label has a
    /// dot in it, so that the text would be another name.
    pub(crate) name: Option<Vec<u8>>,
    kind: u16,
    class: u16,
}

impl Question<'_> {
    /// Whether it asks for IPv4 addresses.
    pub(crate) fn is_for_address(&self) -> bool {
        self.kind == A && (self.class == IN || self.class == ANY_CLASS)
    }
}

/// An answer's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name has this address.
    Address(Ipv4Addr),
    /// The name exists, and has nothing of what was asked for.
    Nothing,
    /// The name does not exist.
    NoSuchName,
    /// Failure to tell the answer now.
    Failure,
}

/// Reads a query. `Err` is the answer to one that can't be read, or `None` for what deserves none.
pub(crate) fn read(query: &[u8]) -> Result<Question<'_>, Option<Vec<u8>>> {
    let Some(header) = query.get(..HEADER) else {
        return Err(None);
    };
    let flags = u16::from_be_bytes([header[2], header[3]]);
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if flags & 0x8000 != 0 {
        // An answer: a server that answers those can be made to talk to itself.
        return Err(None);
    }
    let wrong = |code| Err(Some(reply(header, &[], code, &[])));
    if flags & 0x7800 != 0 {
        return wrong(NOT_IMPLEMENTED);
    }
    if questions != 1 {
        return wrong(FORMAT_ERROR);
    }
    let Some((name, after)) = name(query) else {
        return wrong(FORMAT_ERROR);
    };
    let Some(&[a, b, c, d]) = query.get(after..after + 4) else {
        return wrong(FORMAT_ERROR);
    };
    Ok(Question {
        bytes: &query[..after + 4],
        name,
        kind: u16::from_be_bytes([a, b]),
        class: u16::from_be_bytes([c, d]),
    })
}

/// The name behind the header, and where it ends.
fn name(query: &[u8]) -> Option<(Option<Vec<u8>>, usize)> {
    let mut at = HEADER;
    let mut name = Vec::new();
    let mut has_dot = false;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // More would be a pointer, or reserved.
        if length > LONGEST_LABEL || name.len() + length + 2 > LONGEST_NAME {
            return None;
        }
        let label = query.get(at..at + length)?;
        has_dot |= label.contains(&b'.');
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend_from_slice(label);
        at += length;
    }
    Some(((!has_dot).then_some(name), at))
}

const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// The message that answers a question.
pub(crate) fn write(question: &Question<'_>, answer: Answer) -> Vec<u8> {
    let (header, asked) = question.bytes.split_at(HEADER.min(question.bytes.len()));
    let mut record = Vec::new();
    let code = match answer {
        Answer::Address(address) => {
            // The name is that of the question.
            record.extend_from_slice(&[0xc0, HEADER as u8]);
            record.extend_from_slice(&A.to_be_bytes());
            record.extend_from_slice(&IN.to_be_bytes());
            record.extend_from_slice(&TTL.to_be_bytes());
            record.extend_from_slice(&4_u16.to_be_bytes());
            record.extend_from_slice(&address.octets());
            0
        }
        Answer::Nothing => 0,
        Answer::NoSuchName => NAME_ERROR,
        Answer::Failure => SERVER_FAILURE,
    };
    reply(header, asked, code, &record)
}

fn reply(header: &[u8], question: &[u8], code: u8, record: &[u8]) -> Vec<u8> {
    let byte = |at: usize| header.get(at).copied().unwrap_or_default();
    let count = |some: &[u8]| u8::from(!some.is_empty());
    let mut message = vec![byte(0), byte(1)];
    // An answer, with the operation and "recursion desired" of the query; recursion is available.
    message.push(0x80 | (byte(2) & 0x79));
    message.push(0x80 | code);
    message.extend_from_slice(&[0, count(question), 0, count(record), 0, 0, 0, 0]);
    message.extend_from_slice(question);
    message.extend_from_slice(record);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            query.push(label.len() as u8);
            query.extend_from_slice(label);
        }
        query.push(0);
        query.extend_from_slice(&kind.to_be_bytes());
        query.extend_from_slice(&[0, 1]);
        query
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let bytes = query(&[b"Api", b"test"], 1);
        let question = read(&bytes).unwrap();
        assert_eq!(question.name.as_deref(), Some(&b"Api.test"[..]));
        assert!(question.is_for_address());
        let answer = write(&question, Answer::Address(Ipv4Addr::new(198, 18, 0, 2)));
        assert_eq!(
            &answer[..12],
            [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(&answer[12..bytes.len()], &bytes[12..]);
        assert_eq!(
            &answer[bytes.len()..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 0, 2]
        );
        let denied = write(&question, Answer::NoSuchName);
        assert_eq!(denied[3] & 15, 3);
        assert_eq!(denied.len(), bytes.len());
        for kind in [28, 16, 12, 64, 65, 255] {
            assert!(
                !read(&query(&[b"a"], kind)).unwrap().is_for_address(),
                "{kind}"
            );
        }
    }

    #[test]
    fn what_follows_the_question_is_not_looked_at() {
        let mut bytes = query(&[b"a", b"test"], 1);
        bytes[7] = 0xff; // 255 answers that are not there
        bytes.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&bytes).unwrap().name.as_deref(), Some(&b"a.test"[..]));
    }

    #[test]
    fn what_can_not_be_read_gets_an_error_or_nothing() {
        let code = |bytes: &[u8]| match read(bytes) {
            Err(Some(reply)) => Some(reply[3] & 15),
            Err(None) => None,
            Ok(question) => panic!("{question:?}"),
        };
        assert_eq!(code(b""), None);
        assert_eq!(code(&[0; 11]), None);
        let good = query(&[b"a", b"test"], 1);
        for cut in 12..good.len() {
            assert_eq!(code(&good[..cut]), Some(1), "{cut}");
        }
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert_eq!(code(&answer), None);
        let mut update = good.clone();
        update[2] |= 5 << 3;
        assert_eq!(code(&update), Some(4));
        for count in [0, 2, 255] {
            let mut several = good.clone();
            several[5] = count;
            assert_eq!(code(&several), Some(1));
        }
        // A pointer to itself, one forward, one to the header.
        for pointer in [12, 14, 0] {
            let mut bytes = good[..12].to_vec();
            bytes.extend_from_slice(&[0xc0, pointer, 0, 1, 0, 1]);
            assert_eq!(code(&bytes), Some(1));
        }
        let long: Vec<&[u8]> = vec![&[b'a'; 63]; 5];
        assert_eq!(code(&query(&long, 1)), Some(1));
        let mut big = good;
        big.resize(65_535, 0xff);
        assert!(read(&big).is_ok());
        // A dot inside of a label is another name than it looks like.
        assert_eq!(read(&query(&[b"a.test"], 1)).unwrap().name, None);
        assert_eq!(
            read(&query(&[], 1)).unwrap().name.as_deref(),
            Some(&b""[..])
        );
    }

    /// Whatever comes, it is read within its length and answered within its length and a record.
    #[test]
    fn random_bytes_do_no_harm() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..20_000 {
            let mut bytes = query(&[b"api", b"allowed", b"test"], 1);
            for _ in 0..1 + round % 8 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() as usize % (bytes.len() + 1));
            match read(&bytes) {
                Ok(question) => {
                    let answer = write(&question, Answer::Address(Ipv4Addr::LOCALHOST));
                    assert!(answer.len() <= bytes.len() + 16);
                }
                Err(Some(answer)) => assert_eq!(answer.len(), 12),
                Err(None) => {}
            }
        }
    }
}

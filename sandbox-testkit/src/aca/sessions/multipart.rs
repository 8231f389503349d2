//! Takes one file out of `multipart/form-data`.
//!
//! A client that sends such a body under another type is understood too: one published client
//! does that. Everything else than a form is refused.

use memchr::memmem::find;

/// A file of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) file_name: String,
    pub(super) content: &'a [u8],
}

/// The field `file` of a form.
pub(super) fn file(body: &[u8]) -> Option<Part<'_>> {
    // The boundary is the first line, whatever the type says.
    let end = find(body, b"\r\n")?;
    let boundary = body.get(..end).filter(|line| line.starts_with(b"--"))?;
    let mut rest = body.get(end + 2..)?;
    let delimiter = [b"\r\n", boundary].concat();
    loop {
        let head = find(rest, b"\r\n\r\n")?;
        let headers = std::str::from_utf8(rest.get(..head)?).ok()?;
        let content = rest.get(head + 4..)?;
        let length = find(content, &delimiter)?;
        if let Some(file_name) = name_of(headers) {
            let content = content.get(..length)?;
            return Some(Part { file_name, content });
        }
        rest = content
            .get(length + delimiter.len()..)?
            .strip_prefix(b"\r\n")?;
    }
}

/// The file's name if this is the field `file`.
fn name_of(headers: &str) -> Option<String> {
    let line = headers.lines().find(|line| {
        line.to_ascii_lowercase()
            .starts_with("content-disposition:")
    })?;
    let value = |key: &str| {
        let start = line.find(&format!("; {key}=\""))? + key.len() + 4;
        let rest = line.get(start..)?;
        rest.get(..rest.find('"')?).map(str::to_owned)
    };
    value("name").filter(|name| name == "file")?;
    value("filename")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_file_is_found_among_others() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a b\"\r\nContent-Type: text/plain\r\n\r\n\r\n--\x00\r\n--b--\r\n";
        let part = file(body).expect("a file");
        assert_eq!(part.file_name, "a b");
        assert_eq!(part.content, b"\r\n--\x00");
    }

    #[test]
    fn what_is_no_form_is_no_file() {
        for body in [
            &b""[..],
            b"{}",
            b"--b",
            b"--b\r\n",
            b"--b\r\n\r\n",
            b"--b\r\nx\r\n\r\ny",
        ] {
            assert_eq!(file(body), None, "{body:?}");
        }
    }
}

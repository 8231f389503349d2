//! The fuzz targets on the public API, over kept inputs and changes of them;
//! `SANDBOX_FUZZ_SECONDS=60` searches for longer.
#![allow(clippy::expect_used, reason = "a test says what it needs")]

#[path = "../fuzz/public.rs"]
mod public;

use sandbox_testkit::fuzz::attack;

#[test]
fn a_path_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"/workspace\n../../a//./b/",
        b"a/../..\n/..",
        b"\n",
        b"/w\n\xff/\0/x",
        b"w/\n..//./...//a",
    ];
    attack("path", kept, public::path);
}

#[test]
fn an_archive_can_be_anything() {
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(), vec![0; 1024]];
    for gnu in [true, false] {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind) in [
            ("d/", tar::EntryType::Directory),
            ("d/file", tar::EntryType::Regular),
            ("d/link", tar::EntryType::Symlink),
            ("d/hard", tar::EntryType::Link),
            ("fifo", tar::EntryType::Fifo),
        ] {
            let mut header = if gnu {
                tar::Header::new_gnu()
            } else {
                tar::Header::new_ustar()
            };
            header.set_entry_type(kind);
            header.set_mode(0o4755);
            header.set_mtime(1 << 31);
            let content: &[u8] = if kind.is_file() { b"content" } else { b"" };
            header.set_size(content.len() as u64);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("d/file").expect("a name");
            }
            archive
                .append_data(&mut header, name, content)
                .expect("an entry");
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        let long = "long/".repeat(30) + "name";
        archive
            .append_data(&mut header, long, &b"abc"[..])
            .expect("an entry");
        kept.push(archive.into_inner().expect("an archive"));
    }
    let kept: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
    attack("archive", &kept, public::archive);
}

#[test]
fn a_specification_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"example.org\nauthorization\nBearer x\napi.example.org\n*.a.b\n/workspace\nA\n1",
        b"a..b\n\nx-\x01\nexample.org:80\n[::1]\n..\nA=B\n\xff",
        b"xn--bcher-kva.example\nHost\nv\n",
    ];
    attack("spec", kept, public::spec);
}

#[test]
fn a_uri_can_be_anything() {
    let kept: &[&[u8]] = &[
        b"x:https://a:1/p?a=v&dir=/a%2Cb",
        b"?dir=relative&a=%ff",
        b"local",
        b"x:?a=1&a=2,x:",
        b"?other=1",
    ];
    attack("uri", kept, public::uri);
}

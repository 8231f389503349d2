//! Allow-list of what every default root has of the host's `/etc` and `/var/lib`.
//!
//! Programs of `/usr` have their settings in `/etc` and data that packages make in `/var/lib`, and
//! work only with them. Must never name what holds credentials, what identifies the host or its
//! users, or what a service of the host writes while it runs.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Below the host's root: a file, a link, or a directory with all in it that everybody may read.
const SHARED: &[&str] = &[
    // Libraries, locales, names of numbers.
    "etc/alternatives",
    "etc/bindresvport.blacklist",
    "etc/debian_version",
    "etc/ethertypes",
    "etc/gai.conf",
    "etc/host.conf",
    "etc/inputrc",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/locale.alias",
    "etc/locale.conf",
    "etc/localtime",
    "etc/login.defs",
    "etc/lsb-release",
    "etc/magic",
    "etc/magic.mime",
    "etc/mailcap",
    "etc/mime.types",
    "etc/networks",
    "etc/os-release",
    "etc/profile",
    "etc/protocols",
    "etc/redhat-release",
    "etc/rpc",
    "etc/services",
    "etc/terminfo",
    "etc/timezone",
    "etc/xattr.conf",
    // Certificates.
    "etc/ca-certificates",
    "etc/ca-certificates.conf",
    "etc/crypto-policies",
    "etc/pki",
    "etc/ssl",
    "var/lib/ca-certificates-java",
    // Languages.
    "etc/R",
    "etc/erlang",
    "etc/ghc",
    "etc/java",
    "etc/jvm",
    "etc/julia",
    "etc/lua",
    "etc/maven/logging",
    "etc/maven/m2.conf",
    "etc/mono",
    "etc/nodejs",
    "etc/octave.conf",
    "etc/perl",
    "etc/php",
    "var/lib/php/modules",
    "etc/python",
    "etc/ruby",
    "etc/scala",
    "var/lib/gems",
    "var/lib/javascript-common",
    // Packaging.
    "etc/debconf.conf",
    "etc/dpkg",
    "etc/papersize",
    "etc/paperspecs",
    "etc/ucf.conf",
    "var/lib/dpkg/status",
    // Documents, fonts, pictures.
    "etc/ImageMagick-6",
    "etc/ImageMagick-7",
    "etc/dictionaries-common",
    "etc/enscript.cfg",
    "etc/fonts",
    "etc/ghostscript",
    "etc/groff",
    "etc/gs",
    "etc/hunspell",
    "etc/libreoffice",
    "etc/manpath.config",
    "etc/sgml",
    "etc/texmf",
    "etc/xml",
    "var/lib/aspell",
    "var/lib/dictionaries-common",
    "var/lib/ghostscript",
    "var/lib/ispell",
    "var/lib/sgml-base",
    "var/lib/tex-common",
    "var/lib/texmf",
    "var/lib/xml-core",
    // Desktop libraries, which headless browsers load.
    "etc/OpenCL",
    "etc/X11/rgb.txt",
    "etc/X11/xkb",
    "etc/X11/fonts",
    "etc/alsa",
    "etc/chromium",
    "etc/chromium.d",
    "etc/chromium-browser",
    "etc/drirc",
    "etc/firefox",
    "etc/firefox-esr",
    "etc/glvnd",
    "etc/gtk-2.0",
    "etc/gtk-3.0",
    "etc/gtk-4.0",
    "etc/libva.conf",
    "etc/openal",
    "etc/vulkan",
    "etc/xdg",
    // Tools.
    "etc/bash.bashrc",
    "etc/bash_completion.d",
    "etc/emacs",
    "etc/gdb",
    "etc/gprofng.rc",
    "etc/mke2fs.conf",
    "etc/nanorc",
    "etc/netconfig",
    "etc/vim",
    "etc/zsh",
    "var/lib/vim",
    // Only the wrappers' settings: a cluster's own may hold passwords.
    "etc/postgresql-common/createcluster.conf",
    "etc/postgresql-common/user_clusters",
];

/// Names below `etc` that have a version in them begin so.
const VERSIONED: &[&str] = &["java-", "openjdk-", "php-", "python2", "python3", "tex-"];

/// Never copied, even below an allowed directory: by what their names have in them, in lower case.
const SECRET_NAMES: &[&str] = &[
    "private",
    "secret",
    "passw",
    "credential",
    "shadow",
    "netrc",
    "id_rsa",
    "id_ed25519",
];

/// And by how they end.
const SECRET_ENDS: &[&str] = &[".key", ".p12", ".pfx", ".keytab", ".jks"];

/// Never copied: files with any of these in them.
const SECRET_TEXTS: &[&[u8]] = &[b"PRIVATE KEY-----", b"<password>", b"_authToken="];

/// No shorter than any of them.
pub(super) const LONGEST_SECRET: usize = 32;

/// The largest file that is taken for a configuration.
pub(super) const LARGEST: u64 = 16 << 20;
/// More than this altogether is not copied for each provider.
pub(super) const MOST: u64 = 256 << 20;

/// Whether everything below `path`, relative to the root, is on the list.
pub(super) fn is_shared(path: &Path) -> bool {
    // As bytes: to compare paths part by part for each entry takes longer than to find it.
    let path = path.as_os_str().as_bytes();
    let is_versioned = path.strip_prefix(b"etc/").is_some_and(|name| {
        let versioned = |prefix: &&str| name.starts_with(prefix.as_bytes());
        !name.contains(&b'/') && VERSIONED.iter().any(versioned)
    });
    is_versioned || SHARED.iter().any(|shared| shared.as_bytes() == path)
}

/// Whether something below `path`, relative to the root, may be on the list.
pub(super) fn leads_to_shared(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    let is_below = |shared: &&str| {
        let rest = shared.as_bytes().strip_prefix(path);
        rest.is_some_and(|rest| rest.first() == Some(&b'/'))
    };
    SHARED.iter().any(is_below)
}

/// Whether a file or directory is left out for its name.
pub(super) fn has_secret_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
        || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a file is left out for what it holds.
pub(super) fn has_secret_text(content: &[u8]) -> bool {
    SECRET_TEXTS
        .iter()
        .any(|text| memchr::memmem::find(content, text).is_some())
}

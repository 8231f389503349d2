//! Configuration of the host side. Nothing here is about one sandbox.

use std::path::PathBuf;
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use sandbox_egress::Connector;
#[cfg(target_os = "linux")]
use sandbox_oci::{Limits as ImageLimits, Progress as ImageProgress};

/// Configuration of a [`LocalProvider`](crate::LocalProvider).
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use sandbox_local::LocalConfig;
/// let config = LocalConfig::default().state_dir("/var/tmp/my-agent");
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalConfig {
    /// Directory for what sandboxes write: on a filesystem that overlayfs accepts as an upper
    /// layer (ext4, xfs, btrfs, tmpfs; not overlayfs itself, not NFS). Created if missing; must
    /// belong to the host's user.
    ///
    /// On a tmpfs nothing waits for a disk that other programs keep busy; what all sandboxes write
    /// then takes memory, and the size of the tmpfs is the only bound. `docs/performance.md` compares
    /// the placements.
    ///
    /// Directories of providers go with them. Images, snapshots and lasting sandboxes stay, and below
    /// `base` at most two copies of the host's settings, for the next provider.
    ///
    /// Default: `$SANDBOX_STATE_DIR`, or `/var/tmp/sandbox-local-UID`.
    pub state_dir: Option<PathBuf>,
    /// Directories of the host that every sandbox sees read-only at the same path, if they exist.
    ///
    /// Default: `/usr`, `/nix/store`, and those of `/bin`, `/sbin`, `/lib*` that are not links
    /// into `/usr`.
    pub system_dirs: Vec<PathBuf>,
    /// Files and directories of the host that every default root gets a copy of, at the same path:
    /// settings of programs that are not on the built-in list (`/etc/php`, `/etc/fonts`,
    /// `/var/lib/texmf` and many more are). Of a directory everything that all users may read is
    /// copied, once for each provider unless one that is gone left the same; what looks like a secret is
    /// left out, and so are `/etc/passwd` and the few others of which a sandbox has its own. One that is named
    /// and can't be copied at all is an error of [`LocalProvider::new`](crate::LocalProvider::new).
    ///
    /// Default: none.
    pub settings: Vec<PathBuf>,
    /// A cgroup v2 directory that this user may write and that has no processes of its own; limits
    /// of sandboxes go below it.
    ///
    /// Default: the cgroup of this process if it may be used so, or the v1 hierarchies if this
    /// process is root.
    pub cgroup: Option<PathBuf>,
    /// Number of sandboxes that are started ahead of time, in the background, so that creating one
    /// takes a fraction of a millisecond. They are of the kind that was asked for last: specs with
    /// the same network, limits, required isolation and workdir, the default source and no mounts.
    /// And as many inits that wait in namespaces of their own: for forks, and for what is created
    /// in another way with the network off, they are half of a start. With none left, a start takes
    /// its whole time. Each costs the host a sleeping process; all end with the provider and the
    /// last handle of its sandboxes.
    ///
    /// What is prepared holds on to the host's mounts as they were: what is mounted later may be
    /// missing in it, and what is unmounted stays busy until it is used up.
    ///
    /// Default: 0; at most 64.
    pub prepared: usize,
    /// Time for which the output of a command is still read after its main process has ended and
    /// nothing comes: what the rest of its tree is just writing (`tee` behind a shell's
    /// redirection) is not lost. If something keeps coming, ten times this. A command whose output
    /// nothing else holds open does not wait at all; one that leaves a program with its output
    /// behind waits this long.
    ///
    /// Default: 100 ms.
    pub output_grace: Duration,
    /// Resolver of names and dialler of hosts for sandboxes with an egress policy
    /// ([`Network::Allow`](sandbox_core::Network::Allow)). What it finds is checked like what the
    /// host finds.
    ///
    /// Default: the host's resolver and network.
    #[cfg(target_os = "linux")]
    pub connector: Arc<dyn Connector>,
    /// Directory of the cache of unpacked images, which all providers of a user share; it must
    /// belong to the host's user, and be on a filesystem that overlayfs accepts as a lower layer
    /// (nearly all). Created if missing.
    ///
    /// Default: `images` in the state directory.
    pub images_dir: Option<PathBuf>,
    /// Directory of the snapshots, which all providers of a user share, and which stay until they are
    /// deleted: an OCI layout. Created if missing; must belong to the host's user.
    ///
    /// Default: `snapshots` in the state directory.
    pub snapshots_dir: Option<PathBuf>,
    /// Most bytes of the files of unpacked images. When another was unpacked, those that were used
    /// longest ago and that no sandbox uses are removed until the rest is no more than this.
    ///
    /// Default: 20 GiB.
    pub images_most: u64,
    /// Cost that an image may have.
    ///
    /// Default: 256 layers of 4 million entries and 32 GiB each.
    #[cfg(target_os = "linux")]
    pub image_limits: ImageLimits,
    /// Access to registries: credentials and mirrors. None are looked for on this host.
    ///
    /// Default: anonymous, from the registries themselves.
    #[cfg(all(feature = "registry", target_os = "linux"))]
    pub registries: sandbox_oci::Registries,
    /// Listener for the progress of images: layers that are fetched and unpacked. It is called from
    /// threads for blocking work and must return soon.
    ///
    /// Default: none.
    #[cfg(target_os = "linux")]
    pub image_progress: Option<Arc<dyn ImageProgress>>,
    /// Most entries of a guest's tree that one operation goes through on the host: a listing, an
    /// export, the copying or merging of what a sandbox has written when it is forked. Beyond it
    /// the operation fails with [`LimitExceeded`](sandbox_core::ErrorKind::LimitExceeded), which
    /// names the limit. Removing has no limit, as it has to come to its end.
    ///
    /// Default: 20 million.
    pub tree_entries: u64,
    /// Most directories one below the other that such an operation goes down; it costs the host
    /// memory for each of their names.
    ///
    /// Default, and the most: 20,000.
    pub tree_depth: usize,
    /// Most bytes of names such an operation keeps of directories that wait for their turn: the
    /// directories of one directory, and those beside the ones above it.
    ///
    /// Default: 64 MiB.
    pub tree_names: usize,
    /// Whether making a provider raises this process's soft limit on open files to its hard one
    /// (1,024 and 524,288 with systemd). An idle sandbox holds three descriptors, and `create` and
    /// `fork` refuse with [`LimitExceeded`](sandbox_core::ErrorKind::LimitExceeded) what would leave
    /// the others fewer than 64: with 1,024 that is at about 310 sandboxes, with 4,096 at about 1,300.
    ///
    /// The limit is the whole process's, and programs that it starts by itself inherit it; those of
    /// guests don't. One that uses `select` can't be given descriptors above 1,024.
    ///
    /// Default: off.
    pub all_open_files: bool,
}

/// More would cost the host more than they could save.
#[cfg(target_os = "linux")]
pub(crate) const MOST_PREPARED: usize = 64;

/// See [`LocalConfig::images_most`].
const DEFAULT_IMAGES_MOST: u64 = 20 << 30;
/// See [`LocalConfig::tree_entries`].
pub(crate) const DEFAULT_TREE_ENTRIES: u64 = 20_000_000;
/// See [`LocalConfig::tree_depth`].
pub(crate) const DEFAULT_TREE_DEPTH: usize = 20_000;
/// See [`LocalConfig::tree_names`].
pub(crate) const DEFAULT_TREE_NAMES: usize = 64 << 20;

/// See [`LocalConfig::output_grace`].
pub(crate) const DEFAULT_OUTPUT_GRACE: Duration = Duration::from_millis(100);

impl Default for LocalConfig {
    fn default() -> Self {
        let system_dirs = [
            "/usr",
            "/bin",
            "/sbin",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/nix/store",
        ];
        Self {
            state_dir: None,
            system_dirs: system_dirs.iter().map(PathBuf::from).collect(),
            settings: Vec::new(),
            cgroup: None,
            prepared: 0,
            output_grace: DEFAULT_OUTPUT_GRACE,
            #[cfg(target_os = "linux")]
            connector: Arc::new(sandbox_egress::HostConnector::new()),
            images_dir: None,
            snapshots_dir: None,
            images_most: DEFAULT_IMAGES_MOST,
            #[cfg(target_os = "linux")]
            image_limits: ImageLimits::default(),
            #[cfg(all(feature = "registry", target_os = "linux"))]
            registries: sandbox_oci::Registries::new(),
            #[cfg(target_os = "linux")]
            image_progress: None,
            tree_entries: DEFAULT_TREE_ENTRIES,
            tree_depth: DEFAULT_TREE_DEPTH,
            tree_names: DEFAULT_TREE_NAMES,
            all_open_files: false,
        }
    }
}

impl LocalConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The directory in which providers have theirs.
    #[cfg(target_os = "linux")]
    pub(crate) fn state_root(&self) -> PathBuf {
        if let Some(dir) = &self.state_dir {
            return dir.clone();
        }
        match std::env::var_os("SANDBOX_STATE_DIR") {
            Some(dir) if !dir.is_empty() => dir.into(),
            _ => {
                let user = rustix::process::geteuid().as_raw();
                PathBuf::from(format!("/var/tmp/sandbox-local-{user}"))
            }
        }
    }

    /// Keeps what sandboxes write below this directory.
    #[must_use]
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Shows one more directory of the host to every sandbox, read-only at the same path.
    #[must_use]
    pub fn system_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.system_dirs.push(dir.into());
        self
    }

    /// Copies one more file or directory of the host's settings into every default root; see
    /// [`settings`](Self::settings).
    #[must_use]
    pub fn setting(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.push(path.into());
        self
    }

    /// Puts limits below this cgroup v2 directory.
    #[must_use]
    pub fn cgroup(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(dir.into());
        self
    }

    /// Prepares this many sandboxes ahead of time, at most 64; see [`prepared`](Self::prepared).
    #[must_use]
    pub fn prepared(mut self, count: usize) -> Self {
        self.prepared = count;
        self
    }

    /// Resolves names and dials hosts in another way; see [`connector`](Self::connector).
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = connector;
        self
    }

    /// Reads a command's output for this long after its end if nothing comes; see
    /// [`output_grace`](Self::output_grace).
    #[must_use]
    pub fn output_grace(mut self, grace: Duration) -> Self {
        self.output_grace = grace;
        self
    }

    /// Keeps unpacked images below this directory.
    #[must_use]
    pub fn images_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.images_dir = Some(dir.into());
        self
    }

    /// Keeps snapshots below this directory.
    #[must_use]
    pub fn snapshots_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.snapshots_dir = Some(dir.into());
        self
    }

    /// Limits the bytes of unpacked images; see [`images_most`](Self::images_most).
    #[must_use]
    pub fn images_most(mut self, bytes: u64) -> Self {
        self.images_most = bytes;
        self
    }

    /// Limits what an image may cost; see [`image_limits`](Self::image_limits).
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn image_limits(mut self, limits: ImageLimits) -> Self {
        self.image_limits = limits;
        self
    }

    /// Reaches registries in this way; see [`registries`](Self::registries).
    #[cfg(all(feature = "registry", target_os = "linux"))]
    #[must_use]
    pub fn registries(mut self, registries: sandbox_oci::Registries) -> Self {
        self.registries = registries;
        self
    }

    /// Reports the progress of images to this; see [`image_progress`](Self::image_progress).
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn image_progress(mut self, progress: Arc<dyn ImageProgress>) -> Self {
        self.image_progress = Some(progress);
        self
    }

    /// Limits the entries of a tree; see [`tree_entries`](Self::tree_entries).
    #[must_use]
    pub fn tree_entries(mut self, most: u64) -> Self {
        self.tree_entries = most;
        self
    }

    /// Limits the depth of a tree; see [`tree_depth`](Self::tree_depth).
    #[must_use]
    pub fn tree_depth(mut self, most: usize) -> Self {
        self.tree_depth = most;
        self
    }

    /// Limits the memory for names of a tree, in bytes; see [`tree_names`](Self::tree_names).
    #[must_use]
    pub fn tree_names(mut self, bytes: usize) -> Self {
        self.tree_names = bytes;
        self
    }

    /// Raises the soft limit on open files to the hard one; see
    /// [`all_open_files`](Self::all_open_files).
    #[must_use]
    pub fn all_open_files(mut self, raise: bool) -> Self {
        self.all_open_files = raise;
        self
    }
}

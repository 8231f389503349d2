//! Images as the roots of sandboxes: unpacked layers of the cache below a sandbox's own.
//!
//! The cache is shared by all providers of a user. Root's providers have different owners for their
//! files, so that root's sandboxes see the cache through a mount of their own, which translates the
//! owner of the cache into their user. Must never change a layer of the cache.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sandbox_core::{
    Error, ErrorKind, GuestPath, GuestUser as SpecUser, Network, Operation, Result, SandboxSpec,
};
use sandbox_oci::{
    Account, Cache, CachedImage, CachedLayer, Event, Image, ImageConfig, Merged, Platform,
    Reference,
};

use crate::config::LocalConfig;
use crate::guest_user::GuestUser;
use crate::layers::base::{self, GUEST_ID, GUEST_USER, ROOT_USER};
use crate::layers::{Layer, State, translated};
use crate::start::failure;
use crate::walk::Cancel;

const OP: Operation = Operation::Create;

/// Settings of apt for a guest that is root of files of one user.
const APT: &str = "etc/apt/apt.conf.d/99sandbox";

/// The largest `/etc/passwd` of an image that is looked into.
const PASSWD: u64 = 1 << 20;

/// The directory of the cache of images.
pub(crate) fn images_dir(config: &LocalConfig, root: &Path) -> PathBuf {
    let dir = config.images_dir.clone();
    dir.unwrap_or_else(|| root.join("images"))
}

/// The images of one provider.
#[derive(Debug)]
pub(crate) struct Images {
    dir: PathBuf,
    /// Opened when it is first needed.
    cache: Mutex<Option<Arc<Cache>>>,
    /// Layers that lie on images, with the files in them, the one used last first: most starts are of
    /// an image that was started before.
    settings: Mutex<VecDeque<(Files, Arc<Layer>)>>,
}

/// Files by their place in a root, with their content.
type Files = Vec<(&'static str, String)>;

/// The most layers of settings that are kept.
const SETTINGS: usize = 8;

/// An image that is in use as the root of a sandbox.
#[derive(Debug)]
pub(crate) struct ImageRoot {
    /// The layers, the topmost first.
    pub(crate) layers: Vec<Arc<Layer>>,
    /// Settings for running its programs.
    pub(crate) config: ImageConfig,
    /// Name of the user with the guest's number.
    pub(crate) user: String,
    /// Home directory of the image's user.
    pub(crate) home: String,
    /// Whether it lies on the host's own programs: a snapshot of a sandbox that did.
    pub(crate) is_of_host: bool,
    /// Layers in the cache, the topmost first.
    cached: Vec<Arc<CachedLayer>>,
    /// Places of mounts that are links in the image, or lie below one.
    pub(crate) links: Vec<GuestPath>,
    /// The directory that root's sandboxes mount, and its owner.
    pub(crate) mounted: Option<Mounted>,
}

/// The directory of the cache as it is mounted for root's sandboxes.
#[derive(Debug)]
pub(crate) struct Mounted {
    dir: PathBuf,
    owner: (u32, u32),
}

impl Images {
    pub(crate) fn new(config: &LocalConfig, state: &State) -> Self {
        Self {
            dir: images_dir(config, state.root()),
            cache: Mutex::default(),
            settings: Mutex::default(),
        }
    }

    /// The layer that lies on an image. Blocks.
    fn settings(&self, state: &Arc<State>, files: Files) -> io::Result<Arc<Layer>> {
        // Every change is a single call: a panic elsewhere leaves it whole. Held meanwhile, so that one is
        // made once.
        let known = self.settings.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().position(|(those, _)| *those == files);
        let one = match found.and_then(|at| known.remove(at)) {
            Some(one) => one,
            None => {
                let layer = base::build_image(state, &files, state.owner())?;
                (files, layer)
            }
        };
        let layer = one.1.clone();
        known.push_front(one);
        known.truncate(SETTINGS);
        Ok(layer)
    }

    /// The cache, opened.
    pub(crate) fn cache(&self, config: &LocalConfig) -> Result<Arc<Cache>> {
        // A panic elsewhere leaves it as it was.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = &*cache {
            return Ok(cache.clone());
        }
        let owner = GuestUser::for_this_host()
            .map_err(|error| Cache::unusable(error, &self.dir))?
            .map(|user| (user.uid, user.gid));
        let opened = Cache::open(&self.dir, owner, config.image_limits, config.images_most);
        let opened = Arc::new(opened.map_err(|error| {
            Cache::unusable(error, &self.dir)
                .with_hint("choose another with LocalConfig::images_dir")
        })?);
        *cache = Some(opened.clone());
        Ok(opened)
    }
}

/// Takes an image into use: what is missing of it is unpacked. Blocks.
pub(crate) fn take(
    images: &Images,
    config: &LocalConfig,
    reference: &str,
    cancel: &Cancel,
) -> Result<CachedImage> {
    let cache = images.cache(config)?;
    let image = open(&cache, config, reference, false, cancel)?;
    unpack(&cache, config, reference, &image, cancel)
}

/// Opens an image; one of a registry is fetched first, if it was not before or is to be `fresh`.
/// Blocks.
pub(crate) fn open(
    cache: &Cache,
    config: &LocalConfig,
    reference: &str,
    fresh: bool,
    cancel: &Cancel,
) -> Result<Image> {
    let parsed: Reference = reference.parse()?;
    let platform = Platform::host();
    #[cfg(feature = "registry")]
    if let Reference::Registry(name) = &parsed {
        let told = |event: Event| {
            if let Some(progress) = &config.image_progress {
                progress.event(reference, &event);
            }
        };
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::InvalidInput, OP)
                .with_message("an image of a registry is fetched in a tokio runtime")
                .with_source(error)
        })?;
        let registries = &config.registries;
        let wanted = || cancel.check().is_ok();
        return registries.pull(name, cache, fresh, &runtime, &told, &wanted);
    }
    #[cfg(not(feature = "registry"))]
    if let Reference::Registry(name) = &parsed {
        let _ = (config, fresh, cancel);
        let why = format!("the image {name} is in a registry");
        return Err(Error::new(ErrorKind::Unsupported, OP).with_message(why).with_hint(
            "build with the feature `registry`, or fetch it as a file: `skopeo copy docker://NAME oci:DIR`, and name it oci:DIR",
        ));
    }
    Image::open(&parsed, &platform, cache.limits())
}

/// Unpacks what is missing of an opened image. Blocks.
pub(crate) fn unpack(
    cache: &Cache,
    config: &LocalConfig,
    reference: &str,
    image: &Image,
    cancel: &Cancel,
) -> Result<CachedImage> {
    let told = |event: Event| {
        if let Some(progress) = &config.image_progress {
            progress.event(reference, &event);
        }
    };
    cache.take(reference, image, &told, &|| cancel.check().is_ok())
}

impl Images {
    /// Makes the layers of a sandbox's root from an image that is in use. Blocks.
    pub(crate) fn root(
        &self,
        config: &LocalConfig,
        state: &Arc<State>,
        image: &CachedImage,
        spec: &SandboxSpec,
        is_of_host: bool,
    ) -> Result<ImageRoot> {
        let cache = self.cache(config)?;
        let failed = |error: io::Error| {
            failure::io(error, OP).with_message("the root of the image could not be prepared")
        };
        let merged = Merged::open(image.layers.iter().map(|layer| &layer.root)).map_err(failed)?;
        let read = |path: &str| -> Result<Option<String>> {
            let bytes = merged.read(path, PASSWD).map_err(failed)?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let passwd = read("etc/passwd")?;
        let users = passwd.as_deref().unwrap_or_default();
        let is_root = spec.user == SpecUser::Root;
        let (user, number) = match is_root {
            true => ("0", 0),
            false => (&*image.config.user, GUEST_ID),
        };
        let home = Account::find(users, user).map_or_else(|| "/".to_owned(), |user| user.home);
        let known = Account::find(users, &number.to_string());
        let mut files = vec![
            ("etc/hostname", "sandbox\n".to_owned()),
            (
                "etc/hosts",
                "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n".to_owned(),
            ),
        ];
        if is_root {
            // It checks that the user to whom it changes is another one by then.
            if merged.is_dir(b"etc/apt/apt.conf.d").map_err(failed)? {
                files.push((APT, "APT::Sandbox::User \"root\";\n".to_owned()));
            }
        } else if known.is_none() {
            let line = format!("{GUEST_USER}:x:{GUEST_ID}:{GUEST_ID}::{home}:/bin/sh\n");
            files.push(("etc/passwd", with_line(users, &line)));
            let groups = read("etc/group")?.unwrap_or_default();
            let line = format!("{GUEST_USER}:x:{GUEST_ID}:\n");
            files.push(("etc/group", with_line(&groups, &line)));
        }
        if spec.network == Network::Open
            && let Ok(resolver) = std::fs::read_to_string("/etc/resolv.conf")
        {
            files.push(("etc/resolv.conf", resolver));
        }
        let mut layers = Vec::with_capacity(image.layers.len() + 1);
        if !is_of_host {
            layers.push(self.settings(state, files).map_err(failed)?);
        }
        for layer in &image.layers {
            layers.push(Layer::cached(state, layer.clone(), state.owner()).map_err(failed)?);
        }
        let mut links = Vec::new();
        for mount in &spec.mounts {
            let mut above = GuestPath::root();
            let parts = mount.guest.as_bytes().split(|b| *b == b'/');
            for part in parts.filter(|part| !part.is_empty()) {
                above = above.join(part);
                if merged.is_link(above.as_bytes()).map_err(failed)? {
                    links.push(above.clone());
                }
            }
        }
        let mounted = cache.owner().map(|owner| Mounted {
            dir: cache.layers_dir(),
            owner,
        });
        Ok(ImageRoot {
            layers,
            config: image.config.clone(),
            user: match (known, is_root) {
                (Some(known), _) => known.name,
                (None, true) => ROOT_USER.to_owned(),
                (None, false) => GUEST_USER.to_owned(),
            },
            home,
            is_of_host,
            cached: image.layers.clone(),
            links,
            mounted,
        })
    }
}

impl ImageRoot {
    /// The layers that a snapshot of a sandbox on it has too, the topmost first.
    pub(crate) fn cached(&self) -> &[Arc<CachedLayer>] {
        &self.cached
    }
}

impl Mounted {
    /// The directory of the cache as a guest's own, mounted nowhere yet. Later guests have theirs ahead
    /// of time.
    pub(crate) fn view(&self, state: &State, guest: GuestUser) -> Result<OwnedFd> {
        state.show_images(&self.dir, self.owner);
        translated(&self.dir, self.owner, guest).map_err(|error| {
            Error::new(ErrorKind::Isolation, OP)
                .with_message(format!("the image can't be shown to the sandbox: {error}"))
                .with_hint(
                    "images as root need the right to mount and Linux 5.19 or later; as an ordinary \
                     user they need neither",
                )
                .with_source(error)
        })
    }
}

/// The error where root's sandboxes of a provider share one user, so that nothing is translated.
pub(crate) fn untranslated() -> Error {
    Error::new(ErrorKind::Isolation, OP)
        .with_message("images can't be used by root on this host: owners are not translated")
        .with_hint(
            "it needs the right to mount and Linux 5.19 or later; an ordinary user needs neither",
        )
}

/// A text with one more line.
fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}{line}")
}

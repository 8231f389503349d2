//! The command line, as it is documented to its users.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{Exported, Imported, Label, Mounted, Variable, duration, positive, size};

const EXIT_CODES: &str = "\
Exit status of `run` and `shell`:
  the command's own, or 128 and the number of the signal that ended it
  124  the command was ended at --timeout
  125  sandbox itself failed: no sandbox could be had, or it was lost
  126  the program can't be executed
  127  the program was not found
Other commands: 0 for success, 1 if `doctor` found something missing, 125 for a failure.
A wrong command line is 2.

Providers (--provider, or the variable SANDBOX_PROVIDER):
  local:                this host, isolated by Linux namespaces (the default)
  local-landlock:       this host where it grants no namespaces: weaker, see `doctor`
  remote:https://HOST   a server; remote:unix:/PATH is one of `sandbox serve`
  dagger:, aca-sandboxes:, aca-sessions:, local-plain:
                        if this program was built with them; local-plain: isolates nothing
  With commas between, the first that works is used, and why those before it are not is said.";

/// Runs untrusted code in a sandbox.
#[derive(Parser)]
#[command(name = "sandbox", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Source of sandboxes: a URI
    #[arg(
        long,
        short,
        global = true,
        env = "SANDBOX_PROVIDER",
        default_value = "local:"
    )]
    #[arg(value_name = "URI")]
    pub(crate) provider: String,
    /// Print the answer as JSON, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Run a command in a fresh sandbox, which is closed afterwards
    Run(Box<RunOptions>),
    /// Open a terminal in a sandbox, fresh or kept
    Shell(Box<ShellOptions>),
    /// Tell what this host grants, and what would grant more
    Doctor,
    /// List sandboxes: open ones, and kept ones
    Ls(LsOptions),
    /// Close sandboxes, and remove kept ones
    Reap(ReapOptions),
    /// List, delete or export snapshots
    Snapshots(SnapshotOptions),
    /// List, unpack or remove images of this host's own sandboxes
    #[cfg(all(feature = "local", target_os = "linux"))]
    Images(ImageOptions),
    /// Serve sandboxes to other programs, until it is interrupted
    #[cfg(feature = "remote")]
    Serve(ServeOptions),
    /// Serve sandboxes to an agent over the Model Context Protocol, on standard input and output
    #[cfg(feature = "mcp")]
    Mcp(McpOptions),
    /// Print a script that completes command lines
    Completions {
        /// The shell that the script is for
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkChoice {
    /// Nothing but its own loopback
    Off,
    /// Whatever this host reaches
    Open,
}

/// The sandbox that `run` and `shell` work in: a fresh one, or one that is there.
#[derive(Args)]
pub(crate) struct PlaceOptions {
    /// Use this sandbox instead of a fresh one, and leave it; `ls` lists them
    #[arg(long, value_name = "ID", conflicts_with_all = FRESH)]
    pub(crate) attach: Option<String>,
    /// Keep the sandbox when this is done, and name it on standard error
    #[arg(long)]
    pub(crate) keep: bool,
    /// Give the fresh sandbox a label, to find it by
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<Label>,
    /// Show a file or directory of this host; read-only unless :rw follows
    #[arg(long, value_name = "HOST:GUEST[:ro|:rw]")]
    pub(crate) mount: Vec<Mounted>,
    /// Network that the sandbox may reach
    #[arg(long, value_enum, default_value = "off")]
    pub(crate) network: NetworkChoice,
    /// Limit on memory, as 512M or 2G
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Limit on processor time, in cores, as 1.5
    #[arg(long, value_name = "CORES", value_parser = positive)]
    pub(crate) cpus: Option<f64>,
    /// Limit on the number of processes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pids: Option<u32>,
    /// Limit on what may be written, as 1G
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) disk: Option<u64>,
    /// Directory in which the command starts [default: /workspace]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Set a variable; without a value it is taken from the environment of sandbox
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<Variable>,
    /// Start from an image: oci:DIR, oci-archive:FILE or docker-archive:FILE on this host
    #[arg(long, value_name = "REFERENCE", group = "source")]
    pub(crate) image: Option<String>,
    /// Start from a directory of this host, which is only read
    #[arg(long, value_name = "DIR", group = "source")]
    pub(crate) root: Option<PathBuf>,
    /// Start from a snapshot
    #[arg(long, value_name = "ID", group = "source")]
    pub(crate) snapshot: Option<String>,
    /// Be root of the sandbox's own files, as apt-get install needs it: weaker than the default, as the
    /// isolation report says
    #[arg(long)]
    pub(crate) as_root: bool,
}

/// Options that say how a fresh sandbox is to be.
const FRESH: [&str; 12] = [
    "keep", "label", "mount", "network", "memory", "cpus", "pids", "disk", "workdir", "env",
    "source", "as_root",
];

#[derive(Args)]
pub(crate) struct ShellOptions {
    #[command(flatten)]
    pub(crate) place: PlaceOptions,
    /// The program and its arguments [default: sh]
    #[arg(trailing_var_arg = true)]
    #[arg(value_name = "PROGRAM [ARGUMENT]...")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) place: PlaceOptions,
    /// Copy a directory of this host into the sandbox first [default place: the workdir]
    #[arg(long, value_name = "DIR[:GUEST]")]
    pub(crate) import: Vec<Imported>,
    /// Leave out of imports and exports what matches, as in .gitignore
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Leave out of imports what .gitignore and .ignore files name
    #[arg(long)]
    pub(crate) ignore_files: bool,
    /// Copy a directory of the sandbox to this host afterwards, however the command ended
    #[arg(long, value_name = "GUEST:DIR")]
    pub(crate) export: Vec<Exported>,
    /// Replace the directory that an export goes to
    #[arg(long)]
    pub(crate) replace: bool,
    /// Write what the command changed in the imported directory as a git patch; - for stdout
    #[arg(long, value_name = "FILE", conflicts_with_all = ["attach", "keep"])]
    pub(crate) patch: Option<PathBuf>,
    /// Put what the command changed in place in the imported directory, unless anything conflicts
    #[arg(long, conflicts_with_all = ["attach", "keep"])]
    pub(crate) apply: bool,
    /// End the command after this time, as 90, 90s or 5m
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Take a snapshot if the command succeeded, and name it on standard error
    #[arg(long)]
    pub(crate) save: bool,
    /// Give the command a terminal: standard input must be one
    #[arg(long)]
    pub(crate) tty: bool,
    /// Run PROGRAM as a script of /bin/sh; arguments are $0, $1, …
    #[arg(long)]
    pub(crate) sh: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    #[arg(value_name = "PROGRAM [ARGUMENT]...")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Args)]
pub(crate) struct LsOptions {
    /// Only those with this label
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<Label>,
}

#[derive(Args)]
pub(crate) struct ReapOptions {
    /// Close those with this label
    #[arg(long, short, value_name = "KEY=VALUE", required_unless_present = "all")]
    pub(crate) label: Vec<Label>,
    /// Close all
    #[arg(long, conflicts_with = "label")]
    pub(crate) all: bool,
    /// Only those that were created longer ago, as 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
    /// Only say what would be closed
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SnapshotOptions {
    #[command(subcommand)]
    pub(crate) action: Option<SnapshotAction>,
    /// Only those with this label
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<Label>,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ImageOptions {
    #[command(subcommand)]
    pub(crate) action: Option<ImageAction>,
}

#[derive(Subcommand)]
pub(crate) enum ImageAction {
    /// List the images that are unpacked (the default)
    Ls,
    /// Unpack an image ahead of its first use
    Pull {
        /// The image, as `run --image` takes it
        reference: String,
    },
    /// Forget images, and remove what of them no other has and no sandbox uses
    Rm {
        /// Their references
        #[arg(required = true)]
        reference: Vec<String>,
    },
    /// Remove what was used longest ago and no sandbox uses
    Gc {
        /// Bytes that may stay, as 5G [default: none]
        #[arg(long, value_name = "BYTES", value_parser = size)]
        keep: Option<u64>,
    },
}

#[derive(Subcommand)]
pub(crate) enum SnapshotAction {
    /// Write a snapshot of this host to a file that podman, docker and skopeo load
    #[cfg(all(feature = "local", target_os = "linux"))]
    Export {
        /// The identifier of the snapshot
        id: String,
        /// The file, which must not be there yet
        file: PathBuf,
    },
    /// Put a snapshot of this host into a registry, for other hosts, engines and clouds
    #[cfg(all(feature = "registry", target_os = "linux"))]
    Push {
        /// The identifier of the snapshot
        id: String,
        /// The name to give it, with a tag, as registry.example/team/base:1
        reference: String,
    },
    /// Delete snapshots
    Rm {
        /// Their identifiers
        #[arg(required = true)]
        id: Vec<String>,
    },
}

#[cfg(feature = "remote")]
#[derive(Args)]
pub(crate) struct ServeOptions {
    /// Address to listen on: unix:/PATH, or a port of loopback as 127.0.0.1:8080
    #[arg(long, short, value_name = "ADDRESS")]
    pub(crate) listen: String,
    /// A file with the token that clients must give; needed for TCP
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Let clients name directories and image files of this host
    #[arg(long)]
    pub(crate) allow_host_paths: bool,
    /// Commands at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pub(crate) max_commands: usize,
    /// Open sandboxes at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pub(crate) max_sandboxes: usize,
    /// Close a sandbox that nothing used for this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
    pub(crate) idle: Duration,
}

#[cfg(feature = "mcp")]
#[derive(Args)]
pub(crate) struct McpOptions {
    /// Serve streamable HTTP at /mcp of a port of loopback instead, as 127.0.0.1:8848
    #[arg(long, short, value_name = "ADDRESS")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// A file with the token that HTTP clients must give
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub(crate) token_file: Option<PathBuf>,
    /// Serve this name in the Host header too
    #[arg(long, value_name = "NAME", requires = "listen")]
    pub(crate) allow_host: Vec<String>,
    /// Let pages of this origin send requests, as https://app.example.com:443
    #[arg(long, value_name = "ORIGIN", requires = "listen")]
    pub(crate) allow_origin: Vec<String>,
    /// Let exports land below this directory of the host
    #[arg(long, value_name = "DIR")]
    pub(crate) export_root: Option<PathBuf>,
    /// Let sandboxes import directories of the host below this one
    #[arg(long, value_name = "DIR")]
    pub(crate) import_root: Vec<PathBuf>,
    /// Let a sandbox reach the network, or start from an image that is pulled, if it asks for it
    #[arg(long)]
    pub(crate) allow_network: bool,
    /// Open sandboxes at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    pub(crate) max_sandboxes: usize,
    /// Close a sandbox that nothing used for this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
    pub(crate) idle: Duration,
}

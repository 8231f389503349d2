//! Isolation in force in each sandbox: asked from inside, never read from its options.

use crate::support::Outcome;

/// Prints namespaces, privileges, filters and network interfaces, one a line.
pub(crate) const PROBE: &str = "for n in user mnt pid net ipc uts cgroup; do \
    echo ns $n $(readlink /proc/self/ns/$n); done; \
    while read -r k v; do case $k in \
    CapEff:|NoNewPrivs:|Seccomp:) echo $k $v;; esac; done </proc/self/status; \
    while read -r k v; do case $k in *:*) echo net ${k%%:*};; esac; done </proc/net/dev";

/// Names of the columns.
pub(crate) const COLUMNS: [&str; 5] = [
    "Namespaces of its own",
    "Capabilities",
    "`no_new_privs`",
    "seccomp",
    "Network",
];

/// Compares what a sandbox says of itself with what the host says.
pub(crate) fn cells(inside: &str, host: &str) -> Outcome<[String; 5]> {
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned())
    };
    let mut own = Vec::new();
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let key = format!("ns {name} ");
        let id = value(inside, &key).ok_or("the probe printed nothing")?;
        if Some(&id) != value(host, &key).as_ref() {
            own.push(name);
        }
    }
    let capabilities = value(inside, "CapEff:").unwrap_or_default();
    let count = u64::from_str_radix(&capabilities, 16).map_or(0, u64::count_ones);
    let interfaces: Vec<_> = inside
        .lines()
        .filter_map(|line| line.strip_prefix("net "))
        .collect();
    let network = match (own.contains(&"net"), interfaces.as_slice()) {
        (true, [] | ["lo"]) => "none".to_owned(),
        (true, more) => format!("its own: {}", more.join(", ")),
        (false, _) => "the host's".to_owned(),
    };
    let yes = |on: bool| if on { "yes" } else { "**no**" }.to_owned();
    Ok([
        match own.len() {
            7 => "all 7".into(),
            0 => "**none**".into(),
            _ => own.join(", "),
        },
        match count {
            0 => "none".into(),
            count => format!("**{count}**"),
        },
        yes(value(inside, "NoNewPrivs:").as_deref() == Some("1")),
        yes(value(inside, "Seccomp:").as_deref() == Some("2")),
        network,
    ])
}

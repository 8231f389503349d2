//! Single attempts, each a test: to get past the filter, to more rights, to the host's files, to
//! init, to what the whole machine shares. `attempts.c` has them; it runs once inside, and once
//! outside as the control, in namespaces of its own where it has every right.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process;
use std::sync::OnceLock;

use tokio::sync::OnceCell;

use crate::host::{self, Findings};

/// User who can show outside that the attempt works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// An ordinary user too.
    Anyone,
    /// Root alone: the kernel asks for rights on the whole machine.
    Root,
}

fn outside() -> &'static Findings {
    static FOUND: OnceLock<Findings> = OnceLock::new();
    FOUND.get_or_init(|| host::outside("attempts", &["control"]))
}

async fn inside() -> &'static Findings {
    static FOUND: OnceCell<Findings> = OnceCell::const_new();
    FOUND
        .get_or_init(|| async {
            let _turn = host::shared().await;
            let sandbox = host::guest().await;
            let found = host::inside(&sandbox, "attempts", &["inside"]).await;
            sandbox.close().await.expect("close");
            found
        })
        .await
}

/// An attempt that needs no right on Linux 6.1 where BPF's security module answers for it: a label
/// without meaning, on a file of one's own.
const NOT_EVERYWHERE: &str = "set_a_security_attribute";

/// Whether an ordinary user outside may do it too, without a namespace.
fn may_anybody(name: &str) -> bool {
    let dir = host::public_dir();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("a mode");
    let tool = host::tool("attempts");
    let mut attempt = if host::is_root() {
        let mut ordinary = process::Command::new("setpriv");
        ordinary.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        ordinary
            .args(["--inh-caps=-all", "--bounding-set=-all"])
            .arg(tool);
        ordinary
    } else {
        process::Command::new(tool)
    };
    let attempt = attempt.args(["only", name]).current_dir(dir.path());
    attempt.status().expect("it runs").success()
}

async fn check(name: &str, refused: &[&str], control: Control) {
    let worked = outside().get(name);
    if control == Control::Anyone || host::is_root() {
        let is_control = !refused.contains(&worked) && worked != "ENOSYS";
        assert!(is_control, "no control for {name}: {worked}");
    }
    let found = inside().await.get(name);
    if name == NOT_EVERYWHERE && found == "ok" && may_anybody(name) {
        println!("{name}: this kernel lets everybody");
        return;
    }
    assert!(
        refused.contains(&found),
        "{name}: {found}, outside {worked}"
    );
}

macro_rules! attempts {
    ($($name:ident: $refused:expr, $control:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            check(stringify!($name), &$refused, Control::$control).await;
        }
    )*};
}

attempts! {
    clone_mount_namespace: ["EPERM"], Anyone;
    clone_pid_namespace: ["EPERM"], Anyone;
    clone_network_namespace: ["EPERM"], Anyone;
    clone_ipc_namespace: ["EPERM"], Anyone;
    clone_uts_namespace: ["EPERM"], Anyone;
    clone_cgroup_namespace: ["EPERM"], Anyone;
    unshare_time_namespace: ["EPERM"], Anyone;
    clone_user_namespace: ["EPERM"], Anyone;
    enter_own_namespaces_by_pidfd: ["EPERM"], Anyone;
    detach_proc: ["EPERM"], Anyone;
    bind_the_hosts_programs: ["EPERM"], Anyone;
    mount_an_overlay_of_the_hosts_files: ["EPERM"], Anyone;
    mount_devpts_anew: ["EPERM"], Anyone;
    write_user_map: ["EPERM"], Anyone;
    write_group_map: ["EPERM"], Anyone;
    set_host_name: ["EPERM"], Anyone;
    set_domain_name: ["EPERM"], Anyone;
    user_namespace_from_a_thread: ["EPERM"], Anyone;
    user_namespace_after_vfork: ["EPERM"], Anyone;
    user_namespace_of_a_program_in_memory: ["EPERM"], Anyone;
    user_namespace_of_a_program_by_descriptor: ["EPERM"], Anyone;
    user_namespace_of_a_program_by_link: ["EPERM"], Anyone;
    user_namespace_of_a_sibling: ["EPERM"], Anyone;
    user_namespace_behind_an_own_filter: ["EPERM"], Anyone;
    user_namespace_behind_an_own_log_filter: ["EPERM"], Anyone;
    user_namespace_by_an_own_supervisor: ["EPERM"], Anyone;
    clear_secure_bits: ["EPERM"], Anyone;
    take_a_capability: ["EPERM"], Anyone;
    raise_an_ambient_capability: ["EPERM"], Anyone;
    become_root: ["EINVAL"], Anyone;
    become_roots_group: ["EINVAL"], Anyone;
    become_another_user: ["EINVAL"], Root;
    set_groups: ["EPERM"], Root;
    give_a_file_capabilities: ["EPERM"], Anyone;
    set_a_trusted_attribute: ["EPERM"], Root;
    set_a_security_attribute: ["EPERM"], Root;
    make_a_file_immutable: ["EPERM"], Root;
    map_address_zero: ["EPERM"], Root;
    host_file_chmod: ["EROFS"], Anyone;
    host_file_chown: ["EROFS"], Anyone;
    host_file_times: ["EROFS"], Anyone;
    host_file_attribute: ["EROFS"], Anyone;
    host_file_attribute_removed: ["EROFS"], Anyone;
    host_file_flags: ["EROFS"], Anyone;
    host_file_truncate_by_open: ["EROFS"], Anyone;
    host_file_truncate: ["EACCES", "EROFS"], Anyone;
    host_file_hard_link: ["EXDEV"], Anyone;
    host_file_hard_link_by_descriptor: ["EXDEV"], Anyone;
    host_file_exchange: ["EROFS"], Anyone;
    host_file_rename: ["EROFS"], Anyone;
    host_file_unlink: ["EROFS"], Anyone;
    host_dir_new_directory: ["EROFS"], Anyone;
    host_dir_new_link: ["EROFS"], Anyone;
    host_dir_new_fifo: ["EROFS"], Anyone;
    host_dir_new_file: ["EROFS"], Anyone;
    host_dir_nameless_file: ["EROFS"], Anyone;
    host_dir_new_socket: ["EROFS"], Anyone;
    host_dir_own_file_moved_in: ["EXDEV"], Anyone;
    device_directory_new_file: ["EROFS"], Anyone;
    device_times: ["EROFS"], Anyone;
    see_kernel_symbols: ["ENODATA", "ENOENT", "EACCES"], Root;
    see_kernel_modules: ["ENOENT"], Anyone;
    see_control_groups: ["ENOENT"], Anyone;
    see_the_hosts_logs: ["ENODATA", "ENOENT"], Anyone;
    see_roots_home: ["ENODATA", "EACCES"], Root;
    see_the_boot_partition: ["ENOENT"], Anyone;
    see_other_devices: ["ENODEV"], Anyone;
    see_physical_addresses: ["ENODATA"], Root;
    see_inits_namespaces: ["EACCES"], Anyone;
    see_inits_call: ["EACCES"], Anyone;
    see_inits_memory_in_pages: ["EACCES"], Anyone;
    see_inits_io: ["EACCES", "EPERM"], Anyone;
    clear_inits_references: ["EACCES"], Anyone;
    write_inits_memory: ["EPERM"], Anyone;
    push_out_inits_memory: ["EACCES", "EPERM"], Root;
    move_inits_group: ["ESRCH"], Anyone;
    see_inits_robust_list: ["EPERM"], Anyone;
    attach_to_init: ["EPERM"], Anyone;
    slow_init_with_its_user: ["EPERM"], Anyone;
    slow_init_with_its_group: ["ESRCH", "EPERM"], Anyone;
    slow_inits_timers: ["EACCES", "EPERM"], Anyone;
    rename_init: ["EACCES", "EINVAL", "EPERM"], Anyone;
    end_init_by_a_readable_pipe: ["EPERM"], Anyone;
    take_inits_namespaces_by_pidfd: ["EACCES", "EPERM"], Anyone;
    deadline_scheduling: ["EPERM"], Root;
    real_time_input_and_output: ["EPERM"], Root;
    be_nicer_to_oneself: ["EACCES"], Root;
    lock_much_memory: ["ENOMEM"], Root;
    enlarge_a_pipe: ["EPERM"], Anyone;
    a_message_queue_beyond_the_limit: ["EINVAL"], Anyone;
    be_spared_when_memory_runs_out: ["EACCES", "EPERM"], Anyone;
    dump_core: ["EPERM"], Anyone;
    more_open_files: ["EPERM"], Anyone;
    more_processes: ["EPERM"], Anyone;
    huge_pages: ["EINVAL"], Anyone;
    huge_pages_in_a_file: ["EINVAL"], Anyone;
    huge_pages_in_shared_memory: ["EPERM"], Root;
    memory_out_of_the_kernels_sight: ["EPERM"], Anyone;
    socket_families: ["EAFNOSUPPORT"], Anyone;
    protocol_mptcp: ["EPROTONOSUPPORT"], Anyone;
    protocol_mptcp_of_ipv6: ["EPROTONOSUPPORT"], Anyone;
    protocol_mptcp_by_high_bits: ["EPROTONOSUPPORT"], Anyone;
    protocol_udplite: ["EPROTONOSUPPORT"], Anyone;
    take_loopback_down: ["EPERM"], Anyone;
    add_a_route: ["EPERM"], Anyone;
    add_an_address: ["EPERM"], Anyone;
    shape_traffic: ["EPERM"], Anyone;
    mark_packets: ["EPERM"], Anyone;
    force_a_receive_buffer: ["EPERM"], Root;
    speak_for_other_addresses: ["EPERM"], Anyone;
    repair_a_connection: ["EPERM"], Anyone;
    send_anothers_credentials: ["EINVAL"], Anyone;
    another_line_discipline: ["EPERM"], Anyone;
}

/// By registers, whose names differ.
#[cfg(target_arch = "x86_64")]
mod registers {
    use super::{Control, check};

    attempts! {
        user_namespace_by_a_debugger: ["EPERM"], Anyone;
    }
}

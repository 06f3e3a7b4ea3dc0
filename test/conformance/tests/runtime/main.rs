//! The OCI runtime command, as an engine or a person calls it. The same cases run on runc and crun, which tests
//! the cases.

mod bundle;
mod cases;
mod under_test;

use anyhow::Result;
use hull_fixtures::skip;
use under_test::Runtime;

/// Runs one case on one runtime, or says why not.
fn on(name: &str, case: impl FnOnce(&Runtime) -> Result<()>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip(name, "needs root");
        return Ok(());
    }
    match Runtime::named(name)? {
        Ok(runtime) => case(&runtime),
        Err(why) => {
            skip(name, &why);
            Ok(())
        }
    }
}

/// One test for each case and runtime: `runc::a_case`. Which cases a runtime shares with the others is told once.
macro_rules! suites {
    ($everywhere:tt $hull_and_runc:tt $hull_and_crun:tt $hull:tt) => {
        suite!(hull: $everywhere $hull_and_runc $hull_and_crun $hull);
        suite!(runc: $everywhere $hull_and_runc);
        suite!(crun: $everywhere $hull_and_crun);
    };
}

macro_rules! suite {
    ($runtime:ident: $({ $($module:ident::$case:ident)* })*) => {
        mod $runtime {
            $($(#[test] fn $case() -> anyhow::Result<()> {
                super::on(stringify!($runtime), super::cases::$module::$case)
            })*)*
        }
    };
}

suites!(
    // Everywhere.
    {
        lifecycle::stdout_and_exit_code_are_the_process_s
        lifecycle::created_waits_for_start
        lifecycle::kill_delivers_the_signal
        lifecycle::deleting_leaves_nothing
        isolation::namespaces_are_own
        isolation::capabilities_are_the_ones_asked_for
        isolation::seccomp_refuses
        isolation::masked_and_read_only_paths
        process::user_groups_and_umask
        process::exec_runs_in_the_container
        process::a_terminal_is_sent_to_the_console_socket
        mounts::binds
        limits::limits_are_written
        features::attributes_reach_mounts_below
        features::a_tmpfs_begins_with_what_it_covers
        features::seccomp_gives_the_errno_asked_for
        features::seccomp_agents_are_told
        features::exec_takes_a_process_from_a_file
        features::exec_adds_capabilities_and_groups
        features::a_paused_container_runs_nothing
        features::limits_change
        features::descriptors_are_kept_on_request
        features::a_hook_that_takes_too_long_is_ended
        features::deleting_what_is_not_there_is_fine_by_force
        features::kill_all_reaches_all
    }
    // Of Hull and runc.
    {
        lifecycle::standard_input_reaches_the_process
        lifecycle::misuse_is_refused
        lifecycle::force_deletes_a_running_container
        lifecycle::a_missing_command_is_told_and_leaves_nothing
        lifecycle::a_file_that_cannot_be_executed_is_told
        lifecycle::a_broken_configuration_is_refused
        lifecycle::list_tells_containers
        lifecycle::ps_tells_processes
        lifecycle::spec_writes_a_configuration_that_runs
        lifecycle::features_are_told
        lifecycle::the_pid_file_is_written
        isolation::a_namespace_not_asked_for_is_shared
        isolation::a_namespace_is_joined_by_path
        isolation::the_host_name_is_set
        isolation::no_new_privileges_is_set
        isolation::devices_that_are_not_allowed_are_refused
        isolation::user_namespaces_map_ids
        isolation::nothing_of_the_machine_s_root_is_to_be_seen
        isolation::descriptors_do_not_leak
        process::environment_and_folder
        process::resource_limits
        process::sysctls
        process::oom_score
        process::exec_takes_user_environment_and_folder
        process::exec_codes
        mounts::a_read_only_root
        mounts::tmpfs_with_its_options
        mounts::standard_devices
        limits::the_number_of_processes_is_bounded
        limits::too_much_memory_is_killed
        hooks::a_failing_hook_fails_the_container
        features::statistics_have_one_form
    }
    // Of Hull and crun: runc runs poststart hooks in create, before the process is started, so the order of hooks is not
    // asked of it.
    {
        hooks::run_in_order_with_the_state
        features::a_personality_is_taken
    }
    // The escapes are asked of Hull alone: the others are as old as the distribution has them.
    {
        escapes::the_runtime_s_program_cannot_be_written
        escapes::nothing_is_mounted_over_proc
        escapes::proc_and_sys_are_no_links
        escapes::masks_do_not_follow_a_link_of_proc
        escapes::no_mount_lands_outside_in_a_race
        escapes::no_file_is_made_outside_in_a_race
        escapes::exec_makes_nothing_inheritable
        escapes::the_machine_s_cgroups_are_read_only
        escapes::the_working_directory_is_inside
        escapes::masks_are_the_null_device
        escapes::the_console_covers_nothing_else
        escapes::writes_to_proc_reach_the_kernel
        escapes::a_link_as_dev_stays_inside
        escapes::links_in_dev_stay_inside
        escapes::exec_as_user_one_is_user_one
        escapes::the_caller_s_descriptors_are_closed_before_start
    }
);

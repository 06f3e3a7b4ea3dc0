//! The command line, as people and scripts use it: each case with `hull` and with the unmodified docker client.
//!
//! Every case has a test host and an engine of its own, and ends with nothing left behind.

mod cases;

use hull_conformance::{Client, Ground};

/// One test for each case and client.
macro_rules! suite {
    ($client:ident, $kind:expr; $($module:ident::$case:ident)*) => {
        mod $client {
            $(#[test] fn $case() -> anyhow::Result<()> {
                super::Ground::with($kind, super::cases::$module::$case)
            })*
        }
    };
}

/// The same list for every client.
macro_rules! with_each_client {
    ($($module:ident::$case:ident)*) => {
        suite!(hull, super::Client::Hull; $($module::$case)*);
        suite!(docker, super::Client::Docker; $($module::$case)*);
    };
}

with_each_client!(
    run::output_and_exit_code_are_the_process_s
    run::exit_codes_tell_what_failed
    run::standard_input_reaches_the_process
    run::a_terminal_is_one
    run::environment_user_folder_and_entrypoint
    run::names_of_the_machine
    run::rights
    run::file_systems
    run::limits
    run::hello_needs_no_registry
    run::the_container_is_removed_when_asked
    run::a_process_that_reaps
    run::nothing_of_a_failed_run_stays
    life::detached_listed_stopped_removed
    life::create_start_attach
    life::signals_and_codes
    life::stop_kills_after_its_time
    life::pause_and_unpause
    life::rename
    life::restart
    life::wait_tells_codes
    life::names_in_use_are_refused
    life::removing_what_runs_is_refused
    life::restart_policies
    life::health_checks
    logs::streams_are_kept_apart
    logs::tail_and_since
    logs::follow_ends_with_the_container
    logs::time_stamps
    logs::long_lines_and_much_output
    logs::a_driver_that_keeps_nothing
    logs::rotation
    exec::output_and_codes
    exec::environment_user_and_folder
    exec::input_and_terminal
    exec::detached
    tell::ps_columns_filters_and_formats
    tell::inspect_templates
    tell::top_and_stats
    tell::info_version_and_disk_use
    tell::ports
    copy::in_and_out
    copy::streams
    copy::a_stopped_container
    copy::what_is_not_there
    images::tag_list_inspect_history_remove
    images::save_and_load
    images::import_with_changes
    images::push_and_pull
    images::an_image_in_use
    network::bridge_none_host_and_another_container_s
    network::ports_from_everywhere
    network::own_networks
    network::what_is_in_use_is_not_removed
    volumes::named_volumes_last
    volumes::anonymous_volumes_go_with_the_container
    volumes::binds_and_mounts
    volumes::content_of_the_image_is_copied
    engine::containers_outlive_a_stop
    engine::containers_outlive_a_crash
    engine::an_exit_while_no_engine_runs_is_known
    engine::everything_is_taken_away
);

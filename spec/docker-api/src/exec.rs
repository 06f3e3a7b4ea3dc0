//! Processes started in a running container.

use crate::go::go_struct;

go_struct! {
    /// `POST /containers/{id}/exec`.
    pub struct ExecCreateRequest {
        user: String = "User",
        privileged: bool = "Privileged",
        tty: bool = "Tty",
        /// Rows, columns.
        console_size: Option<[u32; 2]> = "ConsoleSize" omitempty,
        attach_stdin: bool = "AttachStdin",
        attach_stderr: bool = "AttachStderr",
        attach_stdout: bool = "AttachStdout",
        detach_keys: String = "DetachKeys",
        env: Option<Vec<String>> = "Env",
        working_dir: String = "WorkingDir",
        cmd: Option<Vec<String>> = "Cmd",
    }

    /// Answer of `POST /containers/{id}/exec`.
    pub struct ExecCreateResponse {
        id: String = "Id",
    }

    /// `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        detach: bool = "Detach",
        tty: bool = "Tty",
        /// Rows, columns.
        console_size: Option<[u32; 2]> = "ConsoleSize" omitempty,
    }

    /// `GET /exec/{id}/json`.
    pub struct ExecInspect {
        id: String = "ID",
        running: bool = "Running",
        exit_code: Option<i64> = "ExitCode",
        process_config: ExecProcessConfig = "ProcessConfig",
        open_stdin: bool = "OpenStdin",
        open_stderr: bool = "OpenStderr",
        open_stdout: bool = "OpenStdout",
        can_remove: bool = "CanRemove",
        container_id: String = "ContainerID",
        detach_keys: String = "DetachKeys",
        pid: i64 = "Pid",
    }

    /// What an exec runs.
    pub struct ExecProcessConfig {
        tty: bool = "tty",
        entrypoint: String = "entrypoint",
        arguments: Vec<String> = "arguments",
        privileged: Option<bool> = "privileged" omitempty,
        user: String = "user" omitempty,
    }
}

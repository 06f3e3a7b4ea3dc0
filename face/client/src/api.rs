//! The requests most commands need, by name.

use hyper::Method;
use serde::de::DeserializeOwned;

use hull_docker_api::*;

use crate::client::{empty, json};
use crate::{Client, Error, Query, Reply, Upgraded, path_part};

impl Client {
    /// `POST /containers/create`.
    pub async fn container_create(
        &self,
        request: &ContainerCreateRequest,
        name: &str,
        platform: &str,
    ) -> Result<ContainerCreateResponse, Error> {
        let query = Query::new().set_nonempty("name", name).set_nonempty("platform", platform);
        self.request(Method::POST, "/containers/create", &query, json(request)).await
    }

    /// `POST /containers/{id}/{action}` for actions that answer with nothing.
    pub async fn container_action(&self, id: &str, action: &str, query: &Query) -> Result<(), Error> {
        let path = format!("/containers/{}/{action}", path_part(id));
        self.request_bytes(Method::POST, &path, query, empty()).await.map(drop)
    }

    /// `GET /containers/{id}/json`.
    pub async fn container_inspect(&self, id: &str) -> Result<ContainerInspect, Error> {
        let path = format!("/containers/{}/json", path_part(id));
        self.request(Method::GET, &path, &Query::new(), empty()).await
    }

    /// `GET /containers/json`.
    pub async fn container_list(&self, query: &Query) -> Result<Vec<ContainerSummary>, Error> {
        self.container_list_as(query).await
    }

    /// [`Client::container_list`], each read as what the caller needs of it.
    pub async fn container_list_as<T: DeserializeOwned>(&self, query: &Query) -> Result<Vec<T>, Error> {
        self.request(Method::GET, "/containers/json", query, empty()).await
    }

    /// `DELETE /containers/{id}`.
    pub async fn container_remove(&self, id: &str, query: &Query) -> Result<(), Error> {
        let path = format!("/containers/{}", path_part(id));
        self.request_bytes(Method::DELETE, &path, query, empty()).await.map(drop)
    }

    /// `POST /containers/{id}/wait`: the engine answers the head at once and the status at the end.
    pub async fn container_wait(&self, id: &str, condition: &str) -> Result<Reply, Error> {
        let path = format!("/containers/{}/wait", path_part(id));
        let query = Query::new().set_nonempty("condition", condition);
        self.send(Method::POST, &path, &query, empty(), &[]).await
    }

    /// `POST /containers/{id}/attach`.
    pub async fn container_attach(&self, id: &str, query: &Query) -> Result<Upgraded, Error> {
        let path = format!("/containers/{}/attach", path_part(id));
        self.hijack(&path, query, full_text(), &[]).await
    }

    /// `POST /containers/{id}/exec`.
    pub async fn exec_create(
        &self,
        id: &str,
        request: &ExecCreateRequest,
    ) -> Result<ExecCreateResponse, Error> {
        let path = format!("/containers/{}/exec", path_part(id));
        self.request(Method::POST, &path, &Query::new(), json(request)).await
    }

    /// `POST /exec/{id}/start` with the streams of the process.
    pub async fn exec_attach(&self, id: &str, request: &ExecStartRequest) -> Result<Upgraded, Error> {
        self.hijack(&format!("/exec/{id}/start"), &Query::new(), json(request), &[]).await
    }

    /// `POST /exec/{id}/start` without streams.
    pub async fn exec_start(&self, id: &str, request: &ExecStartRequest) -> Result<(), Error> {
        let path = format!("/exec/{id}/start");
        self.request_bytes(Method::POST, &path, &Query::new(), json(request)).await.map(drop)
    }

    /// `GET /exec/{id}/json`.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecInspect, Error> {
        self.request(Method::GET, &format!("/exec/{id}/json"), &Query::new(), empty()).await
    }

    /// `GET path` as typed JSON.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str, query: &Query) -> Result<T, Error> {
        self.request(Method::GET, path, query, empty()).await
    }

    /// `POST path` with a JSON body and a JSON answer.
    pub async fn post<B: serde::Serialize, T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &Query,
        body: &B,
    ) -> Result<T, Error> {
        self.request(Method::POST, path, query, json(body)).await
    }

    /// `DELETE path`; the answer's body.
    pub async fn delete(&self, path: &str, query: &Query) -> Result<bytes::Bytes, Error> {
        self.request_bytes(Method::DELETE, path, query, empty()).await
    }
}

/// What docker's client sends with a hijacked request that has no body.
fn full_text() -> crate::client::Payload {
    crate::client::full("text/plain", bytes::Bytes::new())
}

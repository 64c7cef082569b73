//! The gRPC surface, `proto/tidemill/v1`, and the same over HTTP/1.1 for browsers (gRPC-Web). On the HTTP port.

use crate::auth::{Caller, Scope};
use crate::http::{App, ChangeLister, ChangesQuery};
use crate::start::OpenSource;
use axum::Router;
use base::TableName;
use flow::subscribe::catch_up::Refusal;
use flow::subscribe::order::WindowSpec;
use flow::subscribe::shape::{ShapeError, ShapeSpec};
use flow::subscribe::{Request as Wanted, Stream, Subscription};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use proto::v1::{
    AcknowledgeRequest, AcknowledgeResponse, MarkRequest, MarkResponse, OrderBy, SubscribeRequest,
    TailRequest, TailResponse,
};
use proto::{Frame, server};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};
use tonic_web::GrpcWebLayer;

/// Bytes of the longest request: a shape and a token.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Answers to a slow reader of changes that may wait.
const PARTS_MAX: usize = 4;

/// Services by the paths of their methods, for the router of the HTTP port.
pub fn router(app: &App) -> Router<App> {
    let subscriptions =
        server::subscriptions_server::SubscriptionsServer::new(SubscriptionsService { app: app.clone() })
            .max_decoding_message_size(REQUEST_BYTES_MAX);
    let changes = server::changes_server::ChangesServer::new(ChangesService { app: app.clone() })
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    drop(reporter);
    let mut routes = tonic::service::Routes::new(subscriptions).add_service(changes).add_service(health);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    match reflection.build_v1() {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "gRPC reflection is off"),
    }
    let grpc: Router = routes.prepare().into_axum_router().reset_fallback().layer(GrpcWebLayer::new());
    grpc.with_state(())
}

struct SubscriptionsService {
    app: App,
}

fn refused(code: Code, error: &ShapeError) -> Status {
    Status::new(code, format!("{}; hint: {}", error.message, error.hint))
}

fn status_of(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NotFound(error) => refused(Code::NotFound, error),
        Refusal::Invalid(error) => refused(Code::InvalidArgument, error),
        Refusal::Precondition(error) => refused(Code::FailedPrecondition, error),
        Refusal::Unavailable(error) => refused(Code::Unavailable, error),
        Refusal::Exhausted(error) => refused(Code::ResourceExhausted, error),
    }
}

fn invalid(message: impl Into<String>, hint: &str) -> Status {
    Status::invalid_argument(format!("{}; hint: {hint}", message.into()))
}

fn source<'a>(app: &'a App, name: &str) -> Result<&'a OpenSource, Status> {
    let found = app.node.sources.get(name).ok_or_else(|| {
        let error = ShapeError {
            message: format!("there is no source `{name}`"),
            hint: "see `tidemill status`".into(),
        };
        refused(Code::NotFound, &error)
    })?;
    found.open.as_ref().ok_or_else(|| {
        let error = ShapeError {
            message: format!("source `{name}` cannot start"),
            hint: "see its error in `tidemill status`".into(),
        };
        refused(Code::Unavailable, &error)
    })
}

fn window(order: Vec<OrderBy>, limit: u32) -> Result<Option<WindowSpec>, Status> {
    let order = order.into_iter().map(|by| (by.column, by.descending)).collect();
    WindowSpec::new(order, limit).map_err(|error| refused(Code::InvalidArgument, &error))
}

/// Who calls. The guard of the HTTP port has put it there; without it nobody is let in.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>();
    found.cloned().ok_or_else(|| Status::unauthenticated("a token is needed"))
}

/// Why a caller is not given a shape.
pub enum Denied {
    Caller(String),
    NoTable(String),
}

/// What a caller asks for, within what it may see: by every protocol the same.
pub fn spec(
    caller: &Caller,
    source: &str,
    name: &str,
    columns: Vec<String>,
    filter: String,
) -> Result<ShapeSpec, Denied> {
    if !caller.may_on(Scope::Subscribe, source) || !caller.may_see(name) {
        let message = format!("the token may not subscribe to `{name}` of source `{source}`");
        return Err(Denied::Caller(message));
    }
    let (db, table) = name.split_once('.').ok_or_else(|| Denied::NoTable(format!("`{name}` is no table")))?;
    Ok(ShapeSpec {
        table: TableName::new(db, table),
        columns,
        filter: Some(filter).filter(|text| !text.trim().is_empty()),
        enforced: caller.row_rule(name).map(str::to_owned),
        visible: caller.column_list(name).map(<[String]>::to_vec),
        window: None,
    })
}

impl SubscriptionsService {
    fn find(&self, id: u64, caller: &str) -> Result<Arc<Subscription>, Status> {
        let found = self.app.node.subscriptions.find(id).filter(|found| found.caller == caller);
        found.ok_or_else(|| {
            let error = ShapeError {
                message: format!("there is no open subscription {id}"),
                hint: "its stream may have ended: the number is in the READY of the stream that is open"
                    .into(),
            };
            refused(Code::NotFound, &error)
        })
    }
}

#[tonic::async_trait]
impl server::subscriptions_server::Subscriptions for SubscriptionsService {
    type SubscribeStream = BoxStream<'static, Result<Frame, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let shape =
            request.shape.ok_or_else(|| invalid("the request has no shape", "say source and table"))?;
        let spec = spec(&caller, &shape.source, &shape.table, shape.columns, shape.r#where);
        let mut spec = spec.map_err(|denied| match denied {
            Denied::Caller(message) => Status::permission_denied(message),
            Denied::NoTable(message) => invalid(message, "write it as `db.table`"),
        })?;
        let source = source(&self.app, &shape.source)?;
        spec.window = window(shape.order_by, shape.limit)?;
        let wanted = Wanted {
            spec,
            token: request.token,
            credits: request.credits,
            caller: caller.identity(),
            keep: (request.keep_seconds > 0).then(|| Duration::from_secs(request.keep_seconds.into())),
        };
        let stream = self
            .app
            .node
            .subscriptions
            .subscribe(&source.hub, wanted)
            .map_err(|refusal| status_of(&refusal))?;
        Ok(Response::new(frames(stream)))
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeRequest>,
    ) -> Result<Response<AcknowledgeResponse>, Status> {
        let caller = caller(&request)?.identity();
        let AcknowledgeRequest { subscription, batches } = request.into_inner();
        self.find(subscription, &caller)?.acknowledge(batches).map_err(|sent| {
            invalid(
                format!("{batches} batches were acknowledged, and {sent} were sent"),
                "count the responses with a batch since the stream began",
            )
        })?;
        Ok(Response::new(AcknowledgeResponse {}))
    }

    async fn mark(&self, request: Request<MarkRequest>) -> Result<Response<MarkResponse>, Status> {
        let caller = caller(&request)?.identity();
        let subscription = self.find(request.into_inner().subscription, &caller)?;
        let hub = &subscription.hub;
        let lsn = hub.marker.now(&hub.journal).await.map_err(|error| refused(Code::Unavailable, &error))?;
        let mark = subscription.mark(lsn).ok_or_else(|| {
            let error = ShapeError {
                message: "the stream has too many marks that were not reached".into(),
                hint: "read the stream".into(),
            };
            refused(Code::ResourceExhausted, &error)
        })?;
        Ok(Response::new(MarkResponse { mark }))
    }
}

fn frames(stream: Stream) -> BoxStream<'static, Result<Frame, Status>> {
    stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await {
            Some(Ok(bytes)) => Some((Ok(Frame(bytes)), Some(stream))),
            Some(Err(refusal)) => Some((Err(status_of(&refusal)), None)),
            None => {
                Some((Err(Status::unavailable("the node ends; hint: come again with the last token")), None))
            }
        }
    })
    .boxed()
}

struct ChangesService {
    app: App,
}

#[tonic::async_trait]
impl server::changes_server::Changes for ChangesService {
    type TailStream = BoxStream<'static, Result<TailResponse, Status>>;

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let TailRequest { source: name, from_lsn, table, follow, limit } = request.into_inner();
        let source = source(&self.app, &name)?;
        let place = self.app.reader().ok_or_else(|| {
            Status::resource_exhausted("too many readers follow changes already; hint: end one of them")
        })?;
        let query = ChangesQuery {
            from: if from_lsn == 0 { "start".to_owned() } else { from_lsn.to_string() },
            table: Some(table).filter(|table| !table.is_empty()),
            limit: Some(limit).filter(|limit| *limit > 0),
            follow,
            ..ChangesQuery::default()
        };
        let lister = ChangeLister::new(&name, &source.journal, &query)
            .map_err(|message| invalid(message, "for example: from_lsn 1"))?;
        let shutdown = self.app.shutdown();
        let (sender, receiver) = mpsc::channel(PARTS_MAX);
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let ended = lister.run(Some(shutdown), |changes| match changes.is_empty() {
                true => !sender.is_closed(),
                false => sender.blocking_send(Ok(TailResponse { changes })).is_ok(),
            });
            if let Err(message) = ended {
                let _ = sender.blocking_send(Err(Status::data_loss(message)));
            }
        });
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()))
    }
}

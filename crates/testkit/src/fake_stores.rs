//! Stores of TiKV that exist by their word only: they tell a real PD of themselves and of their regions.
//!
//! What they store is nothing, and what PD asks of them they do not do. So PD judges exactly the regions that a test tells
//! it of. Messages are those of `pdpb` and `metapb`, with the fields that are needed and the numbers that the protocol gives them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::pd::Pd;

/// Reports on their way to PD; more wait at `report`.
const REPORTS_MAX: usize = 256;
/// Time between two signs of life of a store; PD calls one disconnected after 20 seconds.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for PD to take a cluster.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two tries.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A store and its labels.
#[derive(Clone, Debug)]
pub struct FakeStore {
    pub id: u64,
    pub labels: Vec<(String, String)>,
}

/// A replica of a region.
#[derive(Clone, Copy, Debug)]
pub struct FakePeer {
    /// Of all replicas of all regions.
    pub id: u64,
    pub store: u64,
    pub is_learner: bool,
    pub is_witness: bool,
    pub is_down: bool,
    pub is_pending: bool,
}

/// A range of keys, and who holds it.
#[derive(Clone, Debug)]
pub struct FakeRegion {
    pub id: u64,
    pub start: Vec<u8>,
    pub end: Vec<u8>,
    /// Must be higher than that of any region that PD knew in this range.
    pub version: u64,
    pub peers: Vec<FakePeer>,
    /// The replica that leads, by its place in `peers`.
    pub leader: usize,
}

/// Stores that have joined a PD.
pub struct FakeStores {
    grpc: Grpc<Channel>,
    header: RequestHeader,
    reports: mpsc::Sender<RegionHeartbeat>,
    ids: Arc<Mutex<Vec<u64>>>,
    /// Reads what PD asks of the stores, and drops it; says again and again that they live.
    tasks: [JoinHandle<()>; 2],
}

impl std::fmt::Debug for FakeStores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeStores").field("cluster", &self.header.cluster_id).finish_non_exhaustive()
    }
}

impl Drop for FakeStores {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl FakeStores {
    /// Makes a cluster of a PD that has none yet, with a first store that holds everything.
    pub async fn join(pd: &Pd, first: &FakeStore) -> Result<FakeStores> {
        let channel = Endpoint::from_shared(format!("http://{}", pd.addr()))?.connect().await?;
        let mut grpc = Grpc::new(channel);
        // PD is healthy some time before it takes a cluster.
        let begun = Instant::now();
        let header = loop {
            match bootstrap(&mut grpc, first).await {
                Ok(header) => break header,
                Err(error) if begun.elapsed() > START_WAIT_MAX => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        };
        let (reports, queue) = mpsc::channel(REPORTS_MAX);
        // PD answers on this stream only when it wants something, so that the call itself would wait for that.
        let mut stream = grpc.clone();
        let deaf = tokio::spawn(async move {
            let request = tonic::Request::new(ReceiverStream::new(queue));
            let codec = ProstCodec::<RegionHeartbeat, Answer>::default();
            let path = PathAndQuery::from_static("/pdpb.PD/RegionHeartbeat");
            if ready(&mut stream).await.is_err() {
                return;
            }
            if let Ok(answers) = stream.streaming(request, path, codec).await {
                let mut answers = answers.into_inner();
                while let Ok(Some(_)) = answers.message().await {}
            }
        });
        let ids = Arc::new(Mutex::new(Vec::new()));
        let alive = tokio::spawn(live(grpc.clone(), header, ids.clone()));
        let mut stores = FakeStores { grpc, header, reports, ids, tasks: [deaf, alive] };
        stores.put(first).await?;
        Ok(stores)
    }

    /// Tells PD of a store that is new, and that it lives.
    pub async fn put(&mut self, store: &FakeStore) -> Result<()> {
        // On a busy machine a PD loses its own lease at times, and leads again a moment later.
        let begun = Instant::now();
        while let Err(error) = self.try_put(store).await {
            if begun.elapsed() > START_WAIT_MAX {
                return Err(error);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(store.id);
        Ok(())
    }

    async fn try_put(&mut self, store: &FakeStore) -> Result<()> {
        let request = StoreRequest { header: Some(self.header), store: Some(message(store)) };
        let answer: Answer = unary(&mut self.grpc, "PutStore", request).await?;
        answer.check("put a store")?;
        beat(&mut self.grpc, self.header, store.id).await
    }

    /// Tells PD of a region. PD takes reports in order, some time later.
    pub async fn report(&self, region: &FakeRegion) -> Result<()> {
        let peer = |peer: &FakePeer| PeerMessage {
            id: peer.id,
            store_id: peer.store,
            role: i32::from(peer.is_learner),
            is_witness: peer.is_witness,
        };
        let down = region.peers.iter().filter(|peer| peer.is_down);
        let down = down.map(|it| PeerStats { peer: Some(peer(it)), down_seconds: 3600 });
        let report = RegionHeartbeat {
            header: Some(self.header),
            region: Some(RegionMessage {
                id: region.id,
                start_key: region.start.clone(),
                end_key: region.end.clone(),
                epoch: Some(Epoch { conf_ver: region.version, version: region.version }),
                peers: region.peers.iter().map(peer).collect(),
            }),
            leader: region.peers.get(region.leader).map(peer),
            down_peers: down.collect(),
            pending_peers: region.peers.iter().filter(|peer| peer.is_pending).map(peer).collect(),
            approximate_size: 64,
            term: 6,
        };
        self.reports.send(report).await.context("PD has ended the stream of reports")
    }
}

/// Says that stores live, for ever.
async fn live(mut grpc: Grpc<Channel>, header: RequestHeader, ids: Arc<Mutex<Vec<u64>>>) {
    let mut ticks = tokio::time::interval(BEAT_INTERVAL);
    loop {
        ticks.tick().await;
        let now = ids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for id in now {
            // A PD that is away hears it the next time.
            let _ = beat(&mut grpc, header, id).await;
        }
    }
}

async fn beat(grpc: &mut Grpc<Channel>, header: RequestHeader, store_id: u64) -> Result<()> {
    let stats = StoreStats { store_id, capacity: 100 << 30, available: 90 << 30 };
    let request = StoreHeartbeat { header: Some(header), stats: Some(stats) };
    let answer: Answer = unary(grpc, "StoreHeartbeat", request).await?;
    answer.check("report a store")
}

/// Makes the cluster, with one region that the first store holds.
async fn bootstrap(grpc: &mut Grpc<Channel>, first: &FakeStore) -> Result<RequestHeader> {
    let members: Answer = unary(grpc, "GetMembers", StoreRequest { header: None, store: None }).await?;
    let header =
        RequestHeader { cluster_id: members.header.context("PD does not say its cluster")?.cluster_id };
    let peer = PeerMessage { id: 2, store_id: first.id, role: 0, is_witness: false };
    let region = RegionMessage {
        id: 1,
        start_key: Vec::new(),
        end_key: Vec::new(),
        epoch: Some(Epoch { conf_ver: 1, version: 1 }),
        peers: vec![peer],
    };
    let request =
        BootstrapRequest { header: Some(header), store: Some(message(first)), region: Some(region) };
    let answer: Answer = unary(grpc, "Bootstrap", request).await?;
    answer.check("bootstrap the cluster")?;
    Ok(header)
}

fn message(store: &FakeStore) -> StoreMessage {
    let label = |(key, value): &(String, String)| LabelMessage { key: key.clone(), value: value.clone() };
    StoreMessage {
        id: store.id,
        address: format!("127.0.0.1:{}", 20000 + store.id),
        labels: store.labels.iter().map(label).collect(),
        version: "8.1.0".to_owned(),
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<()> {
    grpc.ready().await.context("PD does not take requests")
}

async fn unary<Q, A>(grpc: &mut Grpc<Channel>, method: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    ready(grpc).await?;
    let path = PathAndQuery::try_from(format!("/pdpb.PD/{method}"))?;
    let answer = grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await;
    Ok(answer.with_context(|| format!("failed to call {method} of PD"))?.into_inner())
}

#[derive(Clone, Copy, prost::Message)]
struct RequestHeader {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
}

#[derive(Clone, prost::Message)]
struct Refusal {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(message, optional, tag = "2")]
    error: Option<Refusal>,
}

/// What every answer begins with.
#[derive(Clone, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

impl Answer {
    fn check(self, what: &str) -> Result<()> {
        match self.header.and_then(|header| header.error) {
            Some(error) => bail!("failed to {what}: {}", error.message),
            None => Ok(()),
        }
    }
}

#[derive(Clone, prost::Message)]
struct LabelMessage {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, prost::Message)]
struct StoreMessage {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(message, repeated, tag = "4")]
    labels: Vec<LabelMessage>,
    #[prost(string, tag = "5")]
    version: String,
}

#[derive(Clone, Copy, prost::Message)]
struct PeerMessage {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    store_id: u64,
    /// 0 is a voter, 1 a learner.
    #[prost(int32, tag = "3")]
    role: i32,
    #[prost(bool, tag = "4")]
    is_witness: bool,
}

#[derive(Clone, Copy, prost::Message)]
struct Epoch {
    #[prost(uint64, tag = "1")]
    conf_ver: u64,
    #[prost(uint64, tag = "2")]
    version: u64,
}

#[derive(Clone, prost::Message)]
struct RegionMessage {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "vec", tag = "2")]
    start_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    end_key: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    epoch: Option<Epoch>,
    #[prost(message, repeated, tag = "5")]
    peers: Vec<PeerMessage>,
}

#[derive(Clone, prost::Message)]
struct StoreRequest {
    #[prost(message, optional, tag = "1")]
    header: Option<RequestHeader>,
    #[prost(message, optional, tag = "2")]
    store: Option<StoreMessage>,
}

#[derive(Clone, prost::Message)]
struct BootstrapRequest {
    #[prost(message, optional, tag = "1")]
    header: Option<RequestHeader>,
    #[prost(message, optional, tag = "2")]
    store: Option<StoreMessage>,
    #[prost(message, optional, tag = "3")]
    region: Option<RegionMessage>,
}

#[derive(Clone, Copy, prost::Message)]
struct StoreStats {
    #[prost(uint64, tag = "1")]
    store_id: u64,
    #[prost(uint64, tag = "2")]
    capacity: u64,
    #[prost(uint64, tag = "3")]
    available: u64,
}

#[derive(Clone, prost::Message)]
struct StoreHeartbeat {
    #[prost(message, optional, tag = "1")]
    header: Option<RequestHeader>,
    #[prost(message, optional, tag = "2")]
    stats: Option<StoreStats>,
}

#[derive(Clone, Copy, prost::Message)]
struct PeerStats {
    #[prost(message, optional, tag = "1")]
    peer: Option<PeerMessage>,
    #[prost(uint64, tag = "2")]
    down_seconds: u64,
}

#[derive(Clone, prost::Message)]
struct RegionHeartbeat {
    #[prost(message, optional, tag = "1")]
    header: Option<RequestHeader>,
    #[prost(message, optional, tag = "2")]
    region: Option<RegionMessage>,
    #[prost(message, optional, tag = "3")]
    leader: Option<PeerMessage>,
    #[prost(message, repeated, tag = "4")]
    down_peers: Vec<PeerStats>,
    #[prost(message, repeated, tag = "5")]
    pending_peers: Vec<PeerMessage>,
    #[prost(uint64, tag = "10")]
    approximate_size: u64,
    #[prost(uint64, tag = "14")]
    term: u64,
}

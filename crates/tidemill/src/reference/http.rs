//! `http.md`: the routes of `crate::http`.

use super::{NOTE, row};
use crate::http::{FLOW_VERBS, ROUTES};

pub fn page() -> String {
    let mut out = format!(
        "# HTTP\n\n{NOTE}\n\n\
         One port, `listen.http` of `tidemill.yaml`, on loopback only: there is no authentication yet. A request whose `Host` or `Origin` is not this machine is refused with 403, so that pages of other sites cannot call it. Answers are \
         JSON unless said otherwise; errors are problems, see [errors.md](errors.md). Keys may be added to an answer, \
         and are never renamed.\n\n\
         | method | path | answer |\n|---|---|---|\n"
    );
    for route in &ROUTES {
        out.push_str(&row(&[route.method, &format!("`{}`", route.shown), route.what]));
    }
    out.push_str("\n## Verbs of a flow\n\n| verb | what it does, and the answer |\n|---|---|\n");
    for (verb, what) in FLOW_VERBS {
        out.push_str(&row(&[&format!("`{verb}`"), what]));
    }
    out.push_str(
        "\n## Examples\n\n```\n\
         curl -s http://127.0.0.1:7070/api/v1/status\n\
         curl -s -X POST http://127.0.0.1:7070/api/v1/flows/shop_to_out:pause\n\
         curl -s -X POST http://127.0.0.1:7070/api/v1/flows/shop_to_out:resnapshot -d '{\"tables\": [\"shop.orders\"]}'\n\
         curl -s -N 'http://127.0.0.1:7070/api/v1/sources/shop/changes?from=start&follow=true&table=shop.*'\n\
         ```\n",
    );
    out
}

//! Lines to try, as they are, in another terminal.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::Fault;
use super::accounts::{BOB, CAROL, OPERATOR};
use super::page::Page;
use super::stage::{Family, Stage, secret};
use super::walk::identify;
use crate::command::call::Call;

/// Prints them. They use tokens that the walk leaves alone.
pub fn print(page: &mut Page<impl Write>, stage: &Stage) -> Result<(), Fault> {
    page.title("Try it yourself")?;
    page.prose("Everything stays up. In another terminal, as they are:")?;
    valkyrie(page, &stage.valkyrie)?;
    wallet(page, &stage.wallet)?;
    betstack(page, &stage.betstack)?;
    page.line("")?;
    page.prose("Change a byte of any of them and see. Ctrl-C stops everything.")?;
    Ok(page.flush()?)
}

fn valkyrie(page: &mut Page<impl Write>, family: &Family) -> Result<(), Fault> {
    let call = |method, target, token| {
        Call::new(method, target).with("Authorization", &family.authorization()).with("X-Player-Token", token)
    };
    let balance = call("GET", "/players/carol/balance?provider=demo", CAROL.valkyrie);
    let about = "Valkyrie: Carol's balance, as often as you like";
    page.try_line(about, |joint| balance.curl(family.address, joint))?;
    let refresh = call("PUT", "/players/session?provider=demo", BOB.valkyrie);
    let about = "Valkyrie: a new token for Bob. The old one ends: a second time, this line is refused";
    Ok(page.try_line(about, |joint| refresh.curl(family.address, joint))?)
}

fn wallet(page: &mut Page<impl Write>, family: &Family) -> Result<(), Fault> {
    let call = |operation: &str, token: &str| {
        let body = format!(r#"{{"token":"{token}","player_id":1}}"#);
        let call =
            Call::post(&format!("/api/wallet/{operation}"), &body).with("Authorization", &family.authorization());
        family.sign(call, SystemTime::now())
    };
    let balance = call("balance", CAROL.wallet)?;
    let about = "Wallet: Carol's balance, as often as you like";
    page.try_line(about, |joint| balance.curl(family.address, joint))?;
    let terminate = call("terminate", BOB.wallet)?;
    let about = "Wallet: Bob leaves. His token ends: a second time, this line is refused";
    Ok(page.try_line(about, |joint| terminate.curl(family.address, joint))?)
}

fn betstack(page: &mut Page<impl Write>, family: &Family) -> Result<(), Fault> {
    let ping = Call::post("/pam", &format!(r#"{{"action":"ping","data":{{"operator":"{OPERATOR}"}}}}"#));
    let about = "Betstack: a ping, the one call without a signature, as often as you like";
    page.try_line(about, |joint| ping.curl(family.address, joint))?;
    let now = SystemTime::now();
    let call = family.sign(identify(CAROL.betstack), now)?;
    let end = humantime::format_rfc3339_seconds(now + Duration::from_secs(300)).to_string();
    let about = format!("Betstack: who is Carol? Signed just now: works once, and until {end}");
    page.try_line(&about, |joint| call.curl(family.address, joint))?;
    let about = "Betstack: who is Bob? Signed afresh by openssl each time, so that it works once every second";
    Ok(page.try_line(about, |joint| fresh(family, joint))?)
}

/// A line that signs with the tools of a shell.
fn fresh(family: &Family, joint: &str) -> String {
    let Call { target, body, .. } = identify(BOB.betstack);
    let key = secret("BETSTACK_SECRET").unwrap_or_default();
    let parts = [
        format!("body='{body}';"),
        "now=$(date +%s);".to_owned(),
        "mac=$(printf %s \"$now$body\" |".to_owned(),
        format!("openssl dgst -sha256 -hmac {key} | sed 's/.* //');"),
        "curl -i".to_owned(),
        "-H \"timestamp: $now\"".to_owned(),
        "-H \"signature: $mac\"".to_owned(),
        "-H 'Content-Type: application/json'".to_owned(),
        "-d \"$body\"".to_owned(),
        format!("'http://{}{target}'", family.address),
    ];
    parts.join(joint)
}

//! What the image promises: its Dockerfile, and the program in the bare root file system that it lays out.
//!
//! No registry and no container engine is asked. `config/image/bare-root` makes the same root as the image has; bubblewrap
//! starts the program in it as a container would: user 65532, nothing can be written, no capability, process 1.

use std::path::Path;
use std::process::Command;

use crate::binary::Running;
use crate::world::{Connection, Folder, Request, root};

const USER: &str = "65532";

/// The secrets that the overlays' configs name.
const SECRETS: [&str; 5] =
    ["wallet-password", "wallet-signing-key", "pam-api-token", "pam-basic-password", "betstack-secret"];

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn the_dockerfile_ends_in_an_image_without_a_shell_for_a_user_that_is_a_number() {
    let dockerfile = text("Dockerfile");
    let (build, last) = dockerfile.split_once("\nFROM scratch\n").unwrap();
    let instructions: Vec<&str> =
        last.lines().filter(|line| line.starts_with(|one: char| one.is_uppercase())).collect();
    let words: Vec<&str> = instructions.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["ARG", "ARG", "LABEL", "COPY", "USER", "STOPSIGNAL", "EXPOSE", "ENTRYPOINT"]);
    for line in ["COPY --from=build /bare /", "USER 65532:65532", "STOPSIGNAL SIGTERM", "ENTRYPOINT [\"/portcullis\"]"]
    {
        assert!(instructions.contains(&line), "{line}");
    }
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(last.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    // The dependencies are built before the sources come, by the lock file, and every instruction that builds has it.
    let (dependencies, sources) = build.split_once("\nCOPY src src\n").unwrap();
    for layer in [dependencies, sources] {
        assert_eq!(layer.matches("cargo build --locked").count(), 1);
    }
    assert!(dependencies.contains("COPY Cargo.toml Cargo.lock ./\n"));
    // What the manifest names must be there, or cargo does not begin.
    let manifest = text("Cargo.toml");
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    let benches = manifest.split("[[bench]]\nname = \"").skip(1).filter(|bench| !bench.contains("\npath"));
    let benches = benches.map(|bench| format!("benches/{}.rs", bench.split('"').next().unwrap()));
    let wanted: Vec<String> = named.map(ToOwned::to_owned).chain(benches).collect();
    assert!(wanted.len() >= 3, "{wanted:?}");
    for path in wanted.iter().map(String::as_str).chain(["benches/proxy/Cargo.toml", "benches/proxy/src/main.rs"]) {
        assert!(dependencies.contains(path), "{path}");
    }
    assert!(!dockerfile.lines().any(|line| line.starts_with("ADD ")));
    let oldest: u32 = text("Cargo.toml").split("rust-version = \"1.").nth(1).unwrap()[..2].parse().unwrap();
    let base: u32 = build.split("/rust:1.").nth(1).unwrap()[..2].parse().unwrap();
    assert!(base >= oldest, "1.{base}");
}

#[test]
fn nothing_is_sent_to_the_build_that_is_not_named() {
    let ignored = text(".dockerignore");
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["*", "!Cargo.toml", "!Cargo.lock", "!src", "!config", "!benches/proxy/Cargo.toml"]);
}

#[test]
fn the_image_the_chart_and_the_overlays_have_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(text("Dockerfile").contains(&format!("ARG VERSION={version}\n")));
    let chart = text("config/helm/portcullis/Chart.yaml");
    assert!(
        chart.contains(&format!("\nversion: {version}\n")) && chart.contains(&format!("\nappVersion: {version}\n"))
    );
    for family in ["valkyrie", "wallet", "betstack"] {
        let overlay = text(&format!("config/kubernetes/overlays/{family}/kustomization.yaml"));
        assert!(overlay.contains(&format!("newTag: {version}\n")), "{family}");
    }
}

/// What the kubelet and a container engine make for a container, of the same root as the image's.
struct Pod {
    folder: Folder,
}

impl Pod {
    fn of(family: &str, test: &str) -> Pod {
        let folder = Folder::new(&format!("image-{family}-{test}"));
        let pod = Pod { folder };
        let bare = pod.place("root");
        let made = Command::new(root().join("config/image/bare-root"))
            .args([env!("CARGO_BIN_EXE_portcullis"), &bare])
            .status();
        assert!(made.unwrap().success());
        // An engine makes the places where it mounts something.
        for place in ["proc", "dev", "etc/portcullis", "run/secrets/portcullis"] {
            std::fs::create_dir_all(Path::new(&bare).join(place)).unwrap();
        }
        for name in ["config", "secrets", "journal"] {
            std::fs::create_dir(pod.place(name)).unwrap();
        }
        let config = text(&format!("config/kubernetes/overlays/{family}/portcullis.toml"));
        pod.folder.write("config/portcullis.toml", &config);
        for secret in SECRETS {
            let path = pod.folder.write(&format!("secrets/{secret}"), "only-for-this-test");
            // As a Secret with defaultMode 0440 and the pod's group.
            pod.owned(&path, "root", "0440");
        }
        pod.owned(&pod.place("journal"), "root", "2770");
        pod
    }

    fn place(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Where this is not root, the files are those of the one user there is.
    fn owned(&self, path: &str, owner: &str, mode: &str) {
        if is_root() {
            assert!(Command::new("chown").args([&format!("{owner}:{USER}"), path]).status().unwrap().success());
        }
        assert!(Command::new("chmod").args([mode, path]).status().unwrap().success());
    }

    fn start(&self, more: &[&str]) -> Running {
        let sandbox: Vec<String> = [
            "bwrap --unshare-all --share-net --as-pid-1 --die-with-parent --clearenv --cap-drop ALL".to_owned(),
            format!("--uid {USER} --gid {USER} --ro-bind {} / --proc /proc --dev /dev", self.place("root")),
            format!("--ro-bind {} /etc/portcullis", self.place("config")),
            format!("--ro-bind {} /run/secrets/portcullis", self.place("secrets")),
            format!("--bind {} /var/lib/portcullis", self.place("journal")),
            "/portcullis run --config /etc/portcullis/portcullis.toml".to_owned(),
            "--listen 127.0.0.1:0 --admin 127.0.0.1:0".to_owned(),
        ]
        .iter()
        .flat_map(|words| words.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
        // bubblewrap alone would map the user that it is started as, and root may read everything.
        let user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs --");
        let mut words: Vec<&str> = if is_root() { user.split(' ').collect() } else { Vec::new() };
        words.extend(sandbox.iter().map(String::as_str));
        words.extend(more);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        Running::spawn(command)
    }
}

fn is_root() -> bool {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    uid == b"0\n"
}

/// The process inside, as it is known outside.
fn inside(running: &Running) -> String {
    let pid = running.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().to_owned()
}

#[tokio::test]
async fn in_a_bare_root_that_cannot_be_written_it_serves_each_family_as_a_user_that_may_nothing() {
    for family in ["valkyrie", "wallet", "betstack"] {
        let pod = Pod::of(family, "serves");
        let running = pod.start(&[]);
        for path in ["/livez", "/readyz"] {
            let reply = Connection::to(running.admin.parse().unwrap()).await.send(&Request::new("GET", path)).await;
            assert_eq!(reply.status, 200, "{family} {path}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", inside(&running))).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!(field("CapEff:"), "0000000000000000");
        assert_eq!(field("NoNewPrivs:"), "1");
        if is_root() {
            assert_eq!(field("Uid:"), [USER; 4].join("\t"));
        }
        // It wrote its journal where it may, and nothing elsewhere.
        assert!(Path::new(&pod.place("journal")).join("revocations.redb").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_in_the_container_makes_process_1_leave() {
    let pod = Pod::of("wallet", "hook");
    let mut running = pod.start(&["--set", "drain.delay=1s"]);
    // What the kubelet's exec does: in the namespaces of the container, as its user.
    let target = inside(&running);
    let mut hook = Command::new("nsenter");
    hook.args(["--target", &target, "--user", "--mount", "--pid", "--preserve-credentials"]);
    if is_root() {
        hook = Command::new("nsenter");
        hook.args(["--target", &target, "--user", "--mount", "--pid", "--setuid", USER, "--setgid", USER]);
    }
    let hook = hook.args(["/portcullis", "drain"]).output().unwrap();
    assert!(hook.status.success(), "{}", String::from_utf8_lossy(&hook.stderr));
    tokio::task::block_in_place(|| running.event("stopping"));
    assert_eq!(tokio::task::block_in_place(|| running.exit_code()), 0);
}

#[test]
fn there_is_nothing_else_to_run_in_it() {
    let pod = Pod::of("betstack", "files");
    let mut files = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(pod.place("root"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path.display().to_string()) }
        }
    }
    files.sort();
    let known = |file: &str| {
        let library = file.contains("/lib") && file.contains(".so.");
        let rest =
            ["/etc/group", "/etc/nsswitch.conf", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt", "/portcullis"];
        library || rest.iter().any(|name| file == format!("{}{name}", pod.place("root")))
    };
    let strange: Vec<&String> = files.iter().filter(|file| !known(file)).collect();
    assert_eq!(strange, [""; 0]);
    assert!(files.len() > 5, "{files:?}");
}

"""Renders the chart and the overlays, and holds what they come to against what Kubernetes and Portcullis ask for.

Called by .ci/kubernetes, which installs what it needs. Each mistake is one line; any is the end with exit code 1.
"""

import copy
import difflib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib

import jsonschema
import kubernetes_validate
import yaml

# The oldest and the newest that the manifests are for: native sidecars are stable since the first.
VERSIONS = ["1.33", "1.37"]

# All that is ever made. Nothing in it gives rights in the cluster, and no secret stands in it.
KINDS = {
    "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor",
    "PrometheusRule", "Service", "ServiceAccount",
}

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests/kubernetes"
RENDERED = TESTS / "rendered"
CHART = ROOT / "config/helm/portcullis"

mistakes = []


def main():
    with tempfile.TemporaryDirectory() as folder:
        charts = prepare(pathlib.Path(folder))
        rendered = {}
        for values in sorted((TESTS / "values").glob("*.yaml")):
            chart = charts["pam" if "# chart: pam\n" in values.read_text() else "portcullis"]
            lint(chart, values)
            rendered[f"helm-{values.stem}"] = helm(chart, values)
        refused = sorted((TESTS / "refused").glob("*.yaml"))
        for values in refused:
            refuse(charts["portcullis"], values)
        guide(charts)
    for overlay in sorted((ROOT / "config/kubernetes/overlays").iterdir()):
        rendered[f"overlay-{overlay.name}"] = kustomize(overlay)
    rendered["overlay-none"] = kustomize(ROOT / "config/kubernetes/pam")
    compare(rendered)
    count = 0
    for name, text in rendered.items():
        manifests = documents(name, text)
        count += len(manifests)
        for manifest in manifests:
            for fault in faults(manifest):
                mistakes.append(f"{name}: {called(manifest)}: {fault}")
        whole(name, manifests)
    notices_what_is_broken(documents("helm-standalone", rendered["helm-standalone"]))
    same_rules()
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    if mistakes:
        sys.exit(f"{len(mistakes)} mistakes in what is rendered")
    enough(count, len(rendered), len(refused))
    print(f"{count} manifests of {len(rendered)} renderings hold for Kubernetes {' and '.join(VERSIONS)}; "
          f"{len(refused)} sets of values are refused")


def enough(manifests, renderings, refused):
    """A walk that finds nothing holds nothing."""
    if manifests < 40 or renderings < 10 or refused < 15:
        sys.exit(f"only {manifests} manifests of {renderings} renderings, and {refused} sets to refuse, were found")


# Rendering.

def prepare(folder):
    """The chart, and that of a PAM which depends on it, side by side as its Chart.yaml says."""
    for name, source in {"portcullis": CHART, "pam": TESTS / "pam"}.items():
        shutil.copytree(source, folder / name)
    run(["helm", "dependency", "update", "--skip-refresh", folder / "pam"])
    return {name: folder / name for name in ["portcullis", "pam"]}


def helm(chart, values):
    name = "pam" if chart.name == "pam" else "wallet"
    command = ["helm", "template", name, chart, "--namespace", "wallets", "--values", values]
    return run([*command, "--kube-version", VERSIONS[0]])


def lint(chart, values):
    run(["helm", "lint", "--strict", "--quiet", chart, "--values", values, "--kube-version", VERSIONS[0]])


def refuse(chart, values):
    because = values.read_text().splitlines()[0].removeprefix("# refused: ")
    command = ["helm", "template", "wallet", chart, "--values", values, "--kube-version", VERSIONS[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        mistakes.append(f"{values.name}: was rendered")
    elif because not in done.stderr:
        mistakes.append(f"{values.name}: was refused without the words {because!r}: {done.stderr.strip()}")


def kustomize(folder):
    return run(["kustomize", "build", folder])


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(str(word) for word in command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def compare(rendered):
    """With what is recorded. The rules stand there by their name: a change of them is one of two files, not of three."""
    rules = textwrap.indent((CHART / "files/rules.yml").read_text().strip(), "  ", lambda line: True)
    if rules not in rendered["helm-everything"]:
        mistakes.append("helm-everything: the PrometheusRule has not the rules of files/rules.yml")
    rendered = {name: text.replace(rules, "  # files/rules.yml") for name, text in rendered.items()}
    if os.environ.get("UPDATE_REFERENCE"):
        shutil.rmtree(RENDERED, ignore_errors=True)
        RENDERED.mkdir()
        for name, text in rendered.items():
            (RENDERED / f"{name}.yaml").write_text(text)
    for name in sorted(rendered.keys() | {path.stem for path in RENDERED.glob("*.yaml")}):
        path = RENDERED / f"{name}.yaml"
        was = path.read_text() if path.exists() else ""
        now = rendered.get(name, "")
        if was != now:
            lines = difflib.unified_diff(was.splitlines(), now.splitlines(), "recorded", "rendered", lineterm="", n=2)
            mistakes.append(f"{name}: is not as recorded; if that is meant, UPDATE_REFERENCE=1 .ci/kubernetes\n"
                            + "\n".join(lines))


# Each manifest by itself.

class Strict(yaml.SafeLoader):
    """Of a key that is there twice, the API server would keep one, and nobody knows which was meant."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(name, text):
    try:
        return [one for one in yaml.load_all(text, Strict) if one is not None]
    except yaml.YAMLError as fault:
        sys.exit(f"{name}: {fault}")


def called(manifest):
    return f"{manifest.get('kind')}/{manifest.get('metadata', {}).get('name')}"


def faults(manifest):
    if manifest.get("kind") not in KINDS:
        return [f"nothing of that kind should be made: {sorted(KINDS)}"]
    if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
        return defined(manifest)
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as fault:
            place = ".".join(str(part) for part in fault.path)
            found.append(f"Kubernetes {version} has no such {place}: {fault.message}")
    return found


def defined(manifest):
    for path in pathlib.Path(os.environ["PROMETHEUS_OPERATOR"]).glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())["spec"]
        if definition["names"]["kind"] != manifest["kind"]:
            continue
        version = manifest["apiVersion"].split("/")[1]
        schema = next(one["schema"]["openAPIV3Schema"] for one in definition["versions"] if one["name"] == version)
        schema["properties"]["metadata"] = {"type": "object"}
        return [f"{'.'.join(str(part) for part in fault.path)}: {fault.message}"
                for fault in jsonschema.Draft7Validator(closed(schema)).iter_errors(manifest)]
    return ["the operator defines no such kind"]


def closed(schema):
    """What a definition does not name, the API server drops without a word. Here it is a mistake."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    open_on_purpose = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_on_purpose:
        made["additionalProperties"] = False
    return made


def notices_what_is_broken(manifests):
    """The walk above would be worth nothing if it took everything."""
    deployment = next(one for one in manifests if one["kind"] == "Deployment")
    pod = lambda broken: broken["spec"]["template"]["spec"]
    breaks = {
        "a field that does not exist": lambda broken: pod(broken).update(container=[]),
        "a port that is a word": lambda broken: pod(broken)["containers"][0]["ports"][0].update(containerPort="http"),
        "a selector that is missing": lambda broken: broken["spec"].pop("selector"),
        "a version that does not exist": lambda broken: broken.update(apiVersion="apps/v7"),
        "a kind that gives rights": lambda broken: broken.update(kind="ClusterRole"),
    }
    for what, make in breaks.items():
        broken = copy.deepcopy(deployment)
        make(broken)
        try:
            noticed = faults(broken)
        except Exception as fault:  # The library's own way of saying that there is no such schema.
            noticed = [fault]
        if not noticed:
            mistakes.append(f"{what} was taken for a manifest")


# All of a rendering together.

def whole(name, manifests):
    say = lambda fault: mistakes.append(f"{name}: {fault}")
    of = lambda kind: [one for one in manifests if one["kind"] == kind]
    for deployment in of("Deployment"):
        template = deployment["spec"]["template"]
        labels, pod = template["metadata"]["labels"], template["spec"]
        if not selects(deployment["spec"]["selector"], labels):
            say("the Deployment does not select its own pods")
        containers = pod.get("initContainers", []) + pod["containers"]
        ours = [one for one in containers if one["name"] == "portcullis"]
        doors = [container["name"] for container in containers
                 for port in container.get("ports") or [] if port["name"] == door(of("Service"))]
        # Found by its name in each pod: by Portcullis's while there is one, and by the PAM's while there is none.
        if doors != (["portcullis"] if ours else ["pam"]):
            say(f"the Service leads to {doors}")
        for container in ours:
            portcullis(say, container, pod, labels, of)
    if name not in ["overlay-none", "helm-pam-without"] and "portcullis" not in str(of("Deployment")):
        say("there is no Portcullis in it")


def portcullis(say, container, pod, labels, of):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    admin = ports.pop("portcullis-adm")
    (traffic,) = ports.values()
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        if container[probe]["httpGet"]["port"] != admin:
            say(f"{probe} asks another port than the admin's")
    context = container["securityContext"]
    bounded = context["runAsNonRoot"] and context["runAsUser"] > 0 and context["readOnlyRootFilesystem"]
    if not bounded or context["allowPrivilegeEscalation"] or context["capabilities"] != {"drop": ["ALL"]}:
        say("the container may more than it should")
    if context["seccompProfile"] != {"type": "RuntimeDefault"}:
        say("the container has no seccomp profile")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = container["volumeMounts"]
    paths = [mount["mountPath"] for mount in mounts]
    if len(set(paths)) != len(paths):
        say("two volumes are mounted in one place")
    for mount in mounts:
        if "subPath" in mount or mount["name"] not in volumes:
            say(f"the mount {mount['name']} is of no volume, or of a part of one")
        if not mount.get("readOnly") and mount["name"] != "portcullis-journal":
            say(f"{mount['name']} can be written")
        if volumes.get(mount["name"], {}).get("secret", {}).get("defaultMode", 0o440) != 0o440:
            say(f"the secret {mount['name']} has another mode than 0440")
    if not pod.get("securityContext", {}).get("fsGroup"):
        say("without a group of the pod (fsGroup) nobody can read the secrets")

    policies = [policy for policy in of("NetworkPolicy") if selects(policy["spec"]["podSelector"], labels)]
    for policy in policies:
        open_to_all = [port["port"] for rule in policy["spec"]["ingress"] if "from" not in rule for port in rule["ports"]]
        named = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        if traffic not in named or admin not in named or admin in open_to_all or 9000 in named:
            say(f"the NetworkPolicy lets {named} in, and {open_to_all} from anywhere")
    for monitor in of("PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        if not selects(monitor["spec"]["selector"], labels) or endpoint["port"] != "portcullis-adm":
            say("the PodMonitor does not find the pods")

    settings = checks(say, container, volumes, of, traffic, admin)
    delay, timeout, total = (seconds(settings[key]) for key in ["drain.delay", "drain.timeout", "timeouts.total"])
    needed = delay + timeout
    if container.get("restartPolicy") == "Always":
        (pam,) = pod["containers"]
        if container["lifecycle"]["preStop"] != {"exec": {"command": ["/portcullis", "drain"]}}:
            say("a native sidecar is not told that the pod ends")
        stays = pam["lifecycle"]["preStop"]["sleep"]["seconds"]
        if stays < delay + total or stays < needed:
            say(f"the PAM stays {stays} s, and requests may take {max(delay + total, needed)} s")
        needed = stays + delay
        if not any(mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount" for mount in mounts):
            say("the token of the PAM's service account is mounted")
    elif pod["automountServiceAccountToken"] is not False:
        say("the token of the service account is mounted")
    if pod["terminationGracePeriodSeconds"] <= needed:
        say(f"terminationGracePeriodSeconds is {pod['terminationGracePeriodSeconds']}, and {needed} s are needed")


def checks(say, container, volumes, of, traffic, admin):
    """`portcullis check` with the container's own arguments and files, and a secret in each file that the config names."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        moved = {mount["mountPath"]: folder / mount["mountPath"].lstrip("/") for mount in container["volumeMounts"]}
        for path in moved.values():
            path.mkdir(parents=True)

        def at_home(text):
            for path, place in moved.items():
                text = re.sub(rf"(?<![\w/]){re.escape(path)}(?![-\w])", str(place), text)
            return text

        mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "portcullis-config")
        wanted = volumes["portcullis-config"]["configMap"]["name"]
        maps = [one for one in of("ConfigMap") if one["metadata"]["name"] == wanted]
        text = "dialect = \"wallet\"\n"
        for config in maps:
            for file, content in config["data"].items():
                (moved[mount["mountPath"]] / file).write_text(at_home(content))
            text = config["data"]["portcullis.toml"]
        if not maps:
            # It is one that exists already; a config that has everything stands for it.
            text = (TESTS / "values/standalone.yaml").read_text()
            text = yaml.safe_load(text)["config"]
            moved["/run/secrets/portcullis"] = folder / "secrets"
            (moved[mount["mountPath"]] / "portcullis.toml").write_text(at_home(text))
        for file in re.findall(r'"(/run/secrets/[^"]+)"', text):
            place = pathlib.Path(at_home(file))
            if not place.is_relative_to(folder):
                say(f"the config names {file}, which nothing is mounted for")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"only-for-this-check-{place.name}")
        for file, kind in re.findall(r'"(/run/secrets/[^"]+\.(crt|key))"', text):
            certificate(pathlib.Path(at_home(file)).parent)
        environment = {one["name"]: one.get("value", "only-for-this-check") for one in container.get("env", [])}
        run_words = [at_home(word) for word in container["args"]]
        if run_words[0] != "run":
            say(f"the container does not run: {run_words}")
        done = subprocess.run([os.environ["PORTCULLIS"], "check", *run_words[1:]], capture_output=True, text=True,
                              env=environment)
        if done.returncode != 0:
            say(f"portcullis check: {done.stderr.strip()}")
    # What counts: the defaults, the file, and before both the arguments.
    reference = (ROOT / "config/reference.toml").read_text()
    settings = {"drain.delay": "0s", "drain.timeout": "30s", "timeouts.total": "9s", **flat(reference), **flat(text)}
    for word in container["args"]:
        if word.startswith("--set="):
            key, value = word.removeprefix("--set=").split("=", 1)
            settings[key] = value
        elif word.startswith(("--listen=", "--admin=", "--upstream=")):
            key, value = word.removeprefix("--").split("=", 1)
            settings[key] = value
    for key, port in {"listen": traffic, "admin": admin}.items():
        address, _, listens = settings[key].rpartition(":")
        if address not in ["0.0.0.0", "[::]"] or int(listens) != port:
            say(f"{key} is {settings[key]}, and the container's port {port}")
    if container.get("restartPolicy") == "Always" and not settings["upstream"].startswith(("127.", "[::1]")):
        say(f"the PAM of a sidecar is at {settings['upstream']}")
    return settings


def flat(text):
    kept = {}

    def walk(table, before):
        for key, value in table.items():
            if isinstance(value, dict):
                walk(value, f"{before}{key}.")
            else:
                kept[before + key] = value

    walk(tomllib.loads(text), "")
    return kept


def certificate(folder):
    if not (folder / "tls.crt").exists() or (folder / "tls.crt").stat().st_size < 100:
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=pam.example", "-addext", "subjectAltName=DNS:pam.example",
             "-keyout", folder / "tls.key", "-out", folder / "tls.crt"])


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|)", str(text)).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "": 1}[unit]


def door(services):
    (service,) = services
    return service["spec"]["ports"][0]["targetPort"]


def selects(selector, labels):
    return selector["matchLabels"].items() <= labels.items()


# What is said elsewhere.

def guide(charts):
    """Every block of YAML in the guide: values by the chart, a kustomization by kustomize, anything else by the schemas."""
    text = (ROOT / "config/guide/kubernetes.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        if not (ROOT / "config/guide" / link).exists():
            mistakes.append(f"the guide: there is no {link}")
    for path in re.findall(r"(?<![\w./-])config/[\w./-]+", text):
        if not (ROOT / path.rstrip(".")).exists():
            mistakes.append(f"the guide: there is no {path}")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    if len(blocks) < 3:
        mistakes.append("the guide has lost its YAML")
    for block in blocks:
        first = block.splitlines()[0]
        if first.startswith("# values.yaml"):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as values:
                values.write(block)
                values.flush()
                helm(charts["pam" if "mode: sidecar" in block else "portcullis"], values.name)
        elif "kind: Kustomization" in block:
            # In the place of an overlay, where its paths lead somewhere.
            with tempfile.TemporaryDirectory() as folder:
                tree = pathlib.Path(shutil.copytree(ROOT / "config/kubernetes", pathlib.Path(folder) / "kubernetes"))
                (tree / "overlays/wallet/kustomization.yaml").write_text(block)
                kustomize(tree / "overlays/wallet")
        else:
            for manifest in documents("the guide", block):
                for fault in faults(manifest):
                    mistakes.append(f"the guide: {called(manifest)}: {fault}")


def same_rules():
    """A chart reads only what lies in its folder, so the rules lie there a second time."""
    rules = ROOT / "config/prometheus/rules.yml"
    if rules.exists() and rules.read_bytes() != (CHART / "files/rules.yml").read_bytes():
        mistakes.append("the chart has other rules: cp config/prometheus/rules.yml config/helm/portcullis/files/")


main()

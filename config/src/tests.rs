//! The layers, the shipped files, and every way a configuration can be wrong.

use std::collections::HashSet;
use std::time::Duration;

use super::*;

fn load(text: &str) -> Result<Config, Error> {
    Loader::new().text("f.toml", text).load()
}

#[track_caller]
fn refused(text: &str) -> String {
    load(text).expect_err("this must be refused").to_string()
}

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(refused(text), want);
}

fn model(name: &str, fallback: &[&str]) -> Model {
    let fallback = fallback.iter().map(|name| (*name).to_owned()).collect();
    Model { fallback, ..Model::new(name, Provider::Ollama, "m") }
}

fn chain(models: &Models, name: &str) -> Vec<String> {
    models.chain(name).iter().map(|model| model.name.clone()).collect()
}

// The shipped files.

#[test]
fn broker_toml_equals_the_compiled_defaults() {
    let config = Config::shipped().unwrap();

    assert_eq!(config.broker, Broker::default());
    assert_eq!(config.links, Links::default());
    assert_eq!(config.streams, Streams::default());
    assert_eq!(config.routing, Routing::default());
    assert_eq!(config.thresholds, Thresholds::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.packages, Packages::default());
    assert_eq!(config.sessions, Sessions::default());
    assert_eq!(config.handoff, Handoff::default());
    assert_eq!(config.rotation, Rotation::default());
}

#[test]
fn the_shipped_files_name_every_key() {
    let config = Config::shipped().unwrap();
    let text = [BROKER_TOML, LOCAL_TOML, SIMULATED_TOML].join("\n");
    let named: HashSet<String> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = "))
        .map(|(key, _)| key.to_owned())
        .collect();

    for section in config.sections() {
        for key in section.keys() {
            assert!(named.contains(*key), "[{}] {key}", section.name());
        }
    }
}

#[test]
fn local_toml_equals_the_compiled_defaults() {
    assert_eq!(Loader::new().local().load().unwrap(), Config::shipped().unwrap());
}

#[test]
fn simulated_toml_marks_every_model_as_simulated() {
    let config = Loader::new().local().simulated().load().unwrap();

    assert_eq!(config.simulator, Simulator { enabled: true, ..Simulator::default() });
    assert!(config.models.iter().all(|model| model.simulated));
}

#[test]
fn agents_toml_falls_back_to_the_local_model() {
    let models = Config::shipped().unwrap().models;

    assert_eq!(chain(&models, "opus"), ["opus", "sonnet", "gpt-4o", "local"]);
    assert_eq!(chain(&models, "local"), ["local"]);
    let local = models.get("local").unwrap();
    assert!(local.degraded && !local.vision);
    assert_eq!((local.context_window, local.max_output_tokens), (8_192, 2_048));
    assert_eq!((local.prices, local.api_key_env.as_deref()), (Some(Prices::FREE), None));
    let opus = models.get("opus").unwrap();
    assert_eq!(
        (opus.context_window, opus.account.as_str()),
        (1_000_000, "anthropic:ANTHROPIC_API_KEY")
    );
    assert!(opus.vision && !opus.degraded && !opus.simulated);
}

// The layers.

#[test]
fn later_layers_win_whatever_order_they_are_named_in() {
    let patience = |loader: Loader| loader.load().unwrap().routing.patience;
    let file = |loader: Loader| loader.text("f.toml", "[routing]\npatience = \"1s\"\n");
    let env = |loader: Loader| loader.env([("BROKER_ROUTING_PATIENCE", "2s")]);
    let flag = |loader: Loader| loader.set("routing.patience", "3s");

    assert_eq!(patience(Loader::new()), Duration::from_secs(5));
    assert_eq!(patience(file(Loader::new())), Duration::from_secs(1));
    assert_eq!(patience(file(env(Loader::new()))), Duration::from_secs(2));
    assert_eq!(patience(file(env(flag(Loader::new().local())))), Duration::from_secs(3));
}

#[test]
fn the_users_file_is_over_what_up_adds_and_below_a_given_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "[simulator]\nenabled = false\n[routing]\npatience = \"1s\"\n").unwrap();
    let user = || Loader::new().simulated().user(Some(path.clone()));

    let config = user().load().unwrap();
    assert_eq!(
        (config.simulator.enabled, config.routing.patience),
        (false, Duration::from_secs(1))
    );

    let given = user().text("f.toml", "[routing]\npatience = \"2s\"\n").load().unwrap();
    assert_eq!(given.routing.patience, Duration::from_secs(2));
    let env = user().env([("BROKER_ROUTING_PATIENCE", "3s")]).load().unwrap();
    assert_eq!(env.routing.patience, Duration::from_secs(3));
}

#[test]
fn the_users_file_need_not_be_there_but_has_to_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let load = |path: &std::path::Path| Loader::new().user(Some(path.to_owned())).load();
    assert_eq!(load(&path).unwrap(), Config::shipped().unwrap());
    assert_eq!(Loader::new().user(None).load().unwrap(), Config::shipped().unwrap());

    std::fs::write(&path, "[routing]\npatince = \"1s\"\n").unwrap();
    let said = load(&path).unwrap_err().to_string();
    assert!(said.starts_with(&format!("{}:2:1: ", path.display())), "{said}");
    assert_eq!(load(&path.join("below")).unwrap(), Config::shipped().unwrap(), "below a file");
    assert!(load(folder.path()).is_err(), "a folder is no file");
}

#[test]
fn a_given_file_beats_what_up_adds() {
    let loader = Loader::new().text("f.toml", "[simulator]\nenabled = false\n").simulated();

    assert!(!loader.load().unwrap().simulator.enabled);
}

#[test]
fn given_models_replace_the_whole_list() {
    let text = "[[models]]\nname = \"mine\"\nprovider = \"openai\"\nid = \"x\"\n";
    let models = load(text).unwrap().models;

    assert_eq!(models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["mine"]);
    assert_eq!(models.get("mine").unwrap(), &Model::new("mine", Provider::OpenAi, "x"));
    assert!(refused(&format!("{text}fallback = [\"local\"]\n")).contains("did you mean `mine`?"));
}

#[test]
fn every_kind_of_value_can_come_from_a_variable() {
    let config = Loader::new()
        .env([
            ("BROKER_BROKER_DATA_DIR", "/d"),
            ("BROKER_BROKER_RUNTIME", "multi"),
            ("BROKER_BROKER_MAX_FRAME", "2 MiB"),
            ("BROKER_LINKS_MAX_LOST_LEASES", "20"),
            ("BROKER_THRESHOLDS_WARNING", "60"),
            ("BROKER_SIMULATOR_ENABLED", "true"),
        ])
        .load()
        .unwrap();

    assert_eq!(config.broker.data_dir.as_deref(), Some("/d".as_ref()));
    assert_eq!(config.broker.runtime, Runtime::Multi);
    assert_eq!(config.broker.max_frame, 2 << 20);
    assert_eq!((config.links.max_lost_leases, config.thresholds.warning), (20, 60));
    assert!(config.simulator.enabled);
}

#[test]
fn variables_that_are_no_settings_are_let_go() {
    let names = ["BROKER_ENDPOINT", "BROKER_SESSION", "BROKER_TOKEN", "BROKER_AGENT_TOKEN", "PATH"];
    let loader = Loader::new().env(names.map(|name| (name, "canary")));

    assert!(!format!("{loader:?}").contains("canary"));
    assert_eq!(loader.load().unwrap(), Config::shipped().unwrap());
    assert!(is_setting("BROKER_ROUTING_PATIENCE"));
    assert!(!is_setting("BROKER_TOKEN") && !is_setting("ROUTING_PATIENCE"));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let err = Loader::new().env([("BROKER_BROKER_SOCKET", value)]).load().unwrap_err();

    assert_eq!(
        err.to_string(),
        "variable `BROKER_BROKER_SOCKET`: broker.socket: must be UTF-8 text"
    );
}

#[test]
fn the_effective_file_loads_back_to_the_same_configuration() {
    let text = r#"
        [broker]
        data_dir = "/d/with \"quotes\" and \\ and ü"
        runtime = "multi"
        max_frame = "65537 B"
        [routing]
        patience = "9m 2ms"
        [thresholds]
        warning = 1
        margin = 0
        [[models]]
        name = "a"
        provider = "openai"
        id = "x/y:z"
        base_url = "http://127.0.0.1:8080/v1/"
        api_key_env = ""
        fallback = ["B"]
        prices = { input = 1, output = 0.1 }
        aliases = ["The A"]
        keep_alive = "0s"
        [[models]]
        name = "b"
        provider = "anthropic"
        id = "y"
        context_window = 0x1000
        account = "shared"
    "#;
    let mut config = load(text).unwrap();
    config.models.simulate(|provider| format!("http://127.0.0.1:9/{provider}"));

    let again = Loader::new().simulated().text("effective.toml", config.to_toml()).load().unwrap();

    assert_eq!(again, config);
    assert_eq!(again.models.get("a").unwrap().api_key_env, None);
    assert_eq!(again.models.get("b").unwrap().max_output_tokens, 1024);
}

#[test]
fn the_effective_file_of_the_shipped_configuration_is_itself() {
    let config = Config::shipped().unwrap();
    assert_eq!(load(&config.to_toml()).unwrap(), config);
}

// Models.

#[test]
fn models_are_found_as_people_write_them() {
    let text = "[[models]]\nname = \"gpt-4o\"\nprovider = \"openai\"\nid = \"gpt-4o-2024\"\naliases = [\"omni\"]\n";
    let models = load(text).unwrap().models;

    for spelling in ["gpt-4o", "gpt4o", "GPT_4o", " gpt 4o ", "Omni", "gpt-4o-2024"] {
        assert_eq!(models.resolve(spelling).map(|m| m.name.as_str()), Ok("gpt-4o"), "{spelling}");
    }
}

#[test]
fn an_unknown_model_is_answered_with_the_nearest_names() {
    let models = Config::shipped().unwrap().models;

    let unknown = models.resolve("opsu").unwrap_err();

    assert_eq!(unknown.nearest, ["opus"]);
    assert_eq!(unknown.to_string(), "unknown model `opsu`; did you mean `opus`?");
    assert!(models.resolve("").is_err() && models.resolve("--").is_err());
    assert!(!models.resolve("sk-ant-canary").unwrap_err().to_string().contains("canary"));
}

#[test]
fn a_chain_takes_its_own_list_first_and_each_model_once() {
    let models = Models::new(vec![
        model("a", &["b", "c"]),
        model("b", &["d", "c"]),
        model("c", &["e"]),
        model("d", &["e"]),
        model("e", &[]),
    ])
    .unwrap();

    assert_eq!(chain(&models, "a"), ["a", "b", "c", "d", "e"]);
    assert_eq!(chain(&models, "nobody"), [""; 0]);
}

#[test]
fn a_long_chain_is_walked_and_too_many_models_are_refused() {
    let chained = |count: usize| {
        let next = |at: usize| if at + 1 < count { vec![format!("m{}", at + 1)] } else { vec![] };
        (0..count)
            .map(|at| Model { fallback: next(at), ..model(&format!("m{at}"), &[]) })
            .collect::<Vec<_>>()
    };

    assert_eq!(Models::new(chained(256)).unwrap().chain("m0").len(), 256);
    assert!(Models::new(chained(257)).is_err());
}

#[test]
fn a_list_built_by_a_program_is_checked_too() {
    let err = Models::new(vec![model("a", &["a"])]).unwrap_err();
    assert_eq!(err.to_string(), "configuration: models.a.fallback: the chain loops: a -> a");
    assert!(Models::new(vec![model("Bad Name", &[])]).is_err());
}

// What is refused, and in which words.

#[test]
fn unknown_keys_are_named_with_line_and_the_nearest_key() {
    check(
        "# one\n[routing]\n  patince = \"3s\"\n",
        "f.toml:3:3: unknown key `patince` in [routing]; did you mean `patience`?",
    );
    check(
        "[broker]\nheartbeat = \"3s\"\n",
        "f.toml:2:1: unknown key `heartbeat` in [broker]; did you mean `[links] heartbeat`?",
    );
    check("[rooting]\n", "f.toml:1:2: unknown key `rooting` in the file; did you mean `routing`?");
    check(
        "lease = \"9s\"\n",
        "f.toml:1:1: unknown key `lease` in the file; did you mean `[links] lease`?",
    );
    check(
        "[[models]]\nnmae = \"a\"\n",
        "f.toml:2:1: unknown key `nmae` in [[models]]; did you mean `name`?",
    );
}

#[test]
fn the_first_mistake_of_a_file_is_the_one_reported() {
    assert!(
        refused("[up]\nzzz = 1\n[broker]\nyyy = 1\n").starts_with("f.toml:2:1: unknown key `zzz`")
    );
}

#[test]
fn wrong_types_are_named_without_their_value() {
    check(
        "[routing]\npatience = 77\n",
        "f.toml:2:12: routing.patience: must be a duration such as \"30s\", not an integer",
    );
    check(
        "[broker]\nmax_frame = \"77\"\n",
        "f.toml:2:13: broker.max_frame: must be a size such as \"4 MiB\"",
    );
    check(
        "[thresholds]\nwarning = \"seventy\"\n",
        "f.toml:2:11: thresholds.warning: must be a whole number from 0 to 100, not a string",
    );
    check(
        "routing = 3\n",
        "f.toml:1:11: routing: must be a table, written [routing], not an integer",
    );
    check(
        "models = 3\n",
        "f.toml:1:10: models: must be a list of tables, written [[models]], not an integer",
    );
    check(
        "[simulator]\nenabled = 1\n",
        "f.toml:2:11: simulator.enabled: must be true or false, not an integer",
    );
}

#[test]
fn values_out_of_range_are_told_the_range() {
    check(
        "[links]\nmax_lost_leases = 21\n",
        "f.toml:2:19: links.max_lost_leases: must be a whole number from 1 to 20",
    );
    check(
        "[links]\nmax_lost_leases = 99999999999999999999\n",
        "f.toml:2:19: links.max_lost_leases: must be a whole number from 1 to 20",
    );
    check(
        "[thresholds]\nwarning = 101\n",
        "f.toml:2:11: thresholds.warning: must be a whole number from 0 to 100",
    );
    check(
        "[broker]\ndedup_window = \"1m\"\n",
        "f.toml:2:16: broker.dedup_window: must be a duration from 10m to 1year",
    );
    check(
        "[broker]\nmax_frame = \"1 B\"\n",
        "f.toml:2:13: broker.max_frame: must be a size from 1 KiB to 64 MiB",
    );
    check(
        "[broker]\nruntime = \"mutli\"\n",
        "f.toml:2:11: broker.runtime: unknown runtime `mutli`; did you mean `multi`?",
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused_where_the_later_one_stands() {
    check(
        "[thresholds]\ncritical = 60\n",
        "f.toml:2:1: thresholds.critical: `warning` must be below `critical`",
    );
    check(
        "[links]\nlease = \"5s\"\n",
        "f.toml:2:1: links.lease: `heartbeat` must be below `lease`",
    );
    check(
        "[thresholds]\nwarning = 50\ncritical = 40\n",
        "f.toml:3:1: thresholds.critical: `warning` must be below `critical`",
    );
    let err = Loader::new().env([("BROKER_UP_RESTART_MIN", "1m")]).load().unwrap_err();
    assert_eq!(
        err.to_string(),
        "variable `BROKER_UP_RESTART_MIN`: up.restart_min: `restart_min` must be at most `restart_max`"
    );
}

const A: &str = "[[models]]\nname = \"a\"\nprovider = \"anthropic\"\nid = \"x\"\n";
const B: &str = "[[models]]\nname = \"b\"\nprovider = \"ollama\"\nid = \"y\"\n";

#[test]
fn an_unknown_provider_is_answered_with_the_nearest() {
    check(
        "[[models]]\nname = \"a\"\nprovider = \"antropic\"\nid = \"x\"\n",
        "f.toml:3:12: models[0].provider: unknown provider `antropic`; did you mean `anthropic`?",
    );
}

#[test]
fn an_unknown_fallback_is_answered_with_the_nearest() {
    check(
        &format!("{A}fallback = [\n  \"bb\",\n]\n{B}"),
        "f.toml:6:3: models.a.fallback: unknown model `bb`; did you mean `b`?",
    );
}

#[test]
fn a_chain_with_a_loop_is_refused_where_it_closes() {
    check(
        &format!("{A}fallback = [\"b\"]\n{B}fallback = [\"A\"]\n"),
        "f.toml:10:13: models.b.fallback: the chain loops: a -> b -> a",
    );
    check(
        &format!("{A}fallback = [\"a\"]\n"),
        "f.toml:5:13: models.a.fallback: the chain loops: a -> a",
    );
}

#[test]
fn two_models_that_could_be_mistaken_are_refused() {
    check(&format!("{A}{A}"), "f.toml:6:1: models.a.name: `a` is already model `a` (f.toml:1:1)");
    check(
        &format!("{A}{B}aliases = [\"c\", \"-A-\"]\n"),
        "f.toml:9:1: models.b.aliases: `-A-` is already model `a` (f.toml:1:1)",
    );
}

#[test]
fn a_list_without_models_is_refused() {
    check("models = []\n", "f.toml:1:1: models: at least one [[models]] is needed");
}

#[test]
fn what_a_model_must_have_is_named() {
    check("[[models]]\nname = \"a\"\nid = \"x\"\n", "f.toml:1:1: models[0]: `provider` is missing");
    check(
        &format!("{A}prices = {{ input = 1.0 }}\n"),
        "f.toml:5:10: models.a.prices: `output` is missing",
    );
    check(
        &format!("{A}[models.prices]\ninput = 1.0\noutptu = 2.0\n"),
        "f.toml:7:1: unknown key `outptu` in prices; did you mean `output`?",
    );
    assert!(refused(&format!("{A}prices = 3\n")).contains("must be a table such as"));
    assert!(refused(&format!("{A}prices = {{ input = -1, output = 1 }}\n")).contains("from 0 to"));
    assert!(refused(&format!("{A}prices = {{ input = nan, output = 1 }}\n")).contains("from 0 to"));
    assert!(
        refused(&format!("{A}context_window = 5000\nmax_output_tokens = 5000\n"))
            .contains("below `context_window`")
    );
    for name in ["", "Opus", "a b", "..", "ä", "a/b", &"a".repeat(65)] {
        assert!(
            refused(&A.replace("\"a\"", &format!("\"{name}\""))).contains("must be a name"),
            "{name}"
        );
    }
}

#[test]
fn addresses_are_http_and_carry_no_secret() {
    for url in ["http://127.0.0.1:1", "https://[::1]:8443/v1", "https://api.example.com/v1/"] {
        let config = load(&format!("{A}base_url = \"{url}\"\n")).unwrap();
        assert_eq!(config.models.get("a").unwrap().base_url, url.trim_end_matches('/'));
    }
    let bad = [
        "ftp://h",
        "h:80",
        "http://",
        "http://u:canary@h",
        "http://canary@h:1",
        "http://h?k=canary",
        "http://h#canary",
        "http://h:99999",
        "http://h h",
        "",
        "http:///v1",
    ];
    for url in bad {
        let err = refused(&format!("{A}base_url = \"{url}\"\n"));
        assert!(
            err.starts_with("f.toml:5:12: models.a.base_url: must be an address"),
            "{url}: {err}"
        );
        assert!(!err.contains("canary"), "{err}");
    }
}

#[test]
fn a_key_in_the_place_of_its_name_is_never_shown() {
    let key = "sk-ant-api03-canaryCANARY0123456789";
    let texts = [
        format!("{A}api_key_env = \"{key}\"\n"),
        format!("{A}api_key = \"{key}\"\n"),
        format!("{A}{key} = 1\n"),
        format!("{A}fallback = [\"{key}\"]\n"),
        format!("{A}aliases = 3 # {key}\n"),
        format!("{A}account = \"{key}\"\n"),
        format!("{A}id = \"{key}\"\n"),
        A.replace("anthropic", key),
        A.replace("\"a\"", &format!("\"{key}\"")),
        A.replace("\"x\"", &format!("\"{key}\"")),
        format!("[routing]\npatience = \"{key}\"\n"),
        format!("[broker]\ntoken = \"{key}\"\n"),
        format!("[{key}]\n"),
        format!("key = {key}\n"),
        format!("key = \"{key}\n"),
        format!("\"{key}\" = 1\n\"{key}\" = 2\n"),
    ];
    for text in texts {
        let err = load(&text).expect_err(&text);
        assert!(!format!("{err} {err:?}").to_lowercase().contains("canary"), "{err:?}");
    }
    for name in [format!("BROKER_{key}"), "BROKER_KEY".into(), "BROKER_ROUTING_PATIENCE".into()] {
        let err = Loader::new().env([(name, key)]).load().unwrap_err();
        assert!(!format!("{err} {err:?}").to_lowercase().contains("canary"), "{err:?}");
    }
    let err = Loader::new().set(key, key).load().unwrap_err();
    assert!(!format!("{err} {err:?}").to_lowercase().contains("canary"), "{err:?}");
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let err = Loader::new().file(&missing).load().unwrap_err();
    assert!(matches!(&err, Error::Read { path, .. } if *path == missing), "{err:?}");
    assert!(err.to_string().contains("none.toml"));

    assert!(matches!(Loader::new().file(folder.path()).load(), Err(Error::Read { .. })));

    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(matches!(Loader::new().file(&binary).load(), Err(Error::Read { .. })));

    let long = folder.path().join("long.toml");
    std::fs::write(&long, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(matches!(Loader::new().file(&long).load(), Err(Error::TooLarge { .. })));
}

#[test]
fn a_given_file_is_read_and_named_in_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, "[routing]\nmax_attempts = 2\n").unwrap();
    assert_eq!(Loader::new().file(&path).load().unwrap().routing.max_attempts, 2);

    std::fs::write(&path, "[routing]\nmax_attempts = 0\n").unwrap();
    let err = Loader::new().file(&path).load().unwrap_err().to_string();
    assert!(err.starts_with(&format!("{}:2:16: routing.max_attempts", path.display())), "{err}");
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_place() {
    let err = refused("[routing]\npatience = = 1\n");
    assert!(err.starts_with("f.toml:2:12: not valid TOML: "), "{err}");
    let err = refused("[up]\nrestart_min = \"1s\"\nrestart_min = \"2s\"\n");
    assert!(err.starts_with("f.toml:3:1: not valid TOML: duplicate key"), "{err}");
}

#[test]
fn unknown_variables_and_flags_are_answered_with_the_nearest() {
    let variable = |name: &str| Loader::new().env([(name, "1s")]).load().unwrap_err().to_string();
    assert_eq!(
        variable("BROKER_ROUTING_PATINCE"),
        "variable `BROKER_ROUTING_PATINCE`: no such setting; did you mean `BROKER_ROUTING_PATIENCE`?"
    );
    assert_eq!(
        variable("BROKER_BROKER_HEARTBEAT"),
        "variable `BROKER_BROKER_HEARTBEAT`: no such setting; did you mean `BROKER_LINKS_HEARTBEAT`?"
    );
    assert_eq!(
        variable("BROKER_MODELS"),
        "variable `BROKER_MODELS`: models are set in a file, as [[models]]"
    );
    let flag = Loader::new().set("routing.patince", "1s").load().unwrap_err();
    assert_eq!(
        flag.to_string(),
        "command line: unknown key `routing.patince` in the configuration; did you mean `routing.patience`?"
    );
    let value = Loader::new().set("routing.patience", "soon").load().unwrap_err();
    assert_eq!(
        value.to_string(),
        "command line: routing.patience: must be a duration such as \"30s\""
    );
}

#[test]
fn no_text_makes_it_panic() {
    let whole = [BROKER_TOML, AGENTS_TOML, LOCAL_TOML, SIMULATED_TOML].join("\n");
    let chars: Vec<char> = whole.chars().collect();
    // Cut off, and with one character replaced, at every seventh place of everything that is shipped.
    for at in (0..chars.len()).step_by(7) {
        let mut broken = chars.clone();
        let _ = load(&broken[..at].iter().collect::<String>());
        broken[at] = ['"', '[', 'é', '\0', '9', '\n', '='][at % 7];
        let _ = load(&broken.iter().collect::<String>());
    }
    for text in [
        "\u{feff}[routing]\n",
        "[[models]]\n",
        "models = [[]]\n",
        "a.b.c = 1\n",
        "[routing.patience]\n",
    ] {
        let _ = load(text);
    }
    let _ = load(&format!("x = {}", "[".repeat(100_000)));
    let _ = Loader::new().env([("BROKER_", ""), ("BROKER__", ""), ("BROKER_É", "")]).load();
}

//! Strict reading of a JSON body: the values at a few pointers come out, the bytes stay as they are.
//!
//! Two JSON readers that disagree about one body are a way around every check that is made on it, so whatever readers are known to
//! disagree about is refused here: repeated keys, keys that differ only in case, control characters in keys, lone surrogates, numbers
//! beyond a 64-bit float, bytes that are not UTF-8, anything behind the document. What is accepted is RFC 8259 and means the same to all.

mod compact;
mod pointers;
mod reader;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

pub use self::compact::compact;
pub use self::pointers::{Pointer, Pointers};
use self::reader::Reader;
pub(crate) use self::reader::plain_length;

/// What stood at a pointer.
///
/// `Debug` tells the kind and, of strings and numbers, nothing else: a token may stand there.
#[derive(Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as the literal that was written: `1.0`, `1e3` and 64-bit ids keep every character.
    Number(&'a str),
    /// A string, decoded; borrowed from the body unless it holds escapes.
    String(Cow<'a, str>),
    /// An array, whatever it holds.
    Array,
    /// An object, whatever it holds.
    Object,
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("Null"),
            Value::Bool(truth) => write!(f, "Bool({truth})"),
            Value::Number(_) => f.write_str("Number(..)"),
            Value::String(_) => f.write_str("String(..)"),
            Value::Array => f.write_str("Array"),
            Value::Object => f.write_str("Object"),
        }
    }
}

/// The values of the wanted pointers in one document, by slot.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    values: Vec<Option<Value<'a>>>,
}

impl<'a> Found<'a> {
    /// What stood at the pointer with this slot; `None` when nothing did. Slots are those of the [`Pointers`] given to [`read`].
    pub fn at(&self, slot: usize) -> Option<&Value<'a>> {
        self.values.get(slot)?.as_ref()
    }
}

/// Why a body was not read. Never carries any of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// The body is not UTF-8 (RFC 8259 section 8.1).
    NotUtf8,
    /// The body begins with a byte order mark.
    ByteOrderMark,
    /// The body is not one JSON value by the grammar of RFC 8259, or it ends too soon.
    Syntax,
    /// Something other than JSON whitespace stands behind the value.
    TrailingBytes,
    /// The grammar holds, but a string has a lone surrogate or a number is beyond a 64-bit float (RFC 7493 sections 2.1 and 2.2).
    Unrepresentable,
    /// An object has the same decoded key twice.
    DuplicateKey,
    /// A key differs from a wanted one only in case.
    TwinKey,
    /// A decoded key has a character below U+0020, or U+007F.
    KeyControlCharacter,
    /// Arrays and objects are nested more than 64 levels deep.
    TooDeep,
}

impl JsonFault {
    /// All there are.
    pub const ALL: [JsonFault; 9] = [
        JsonFault::NotUtf8,
        JsonFault::ByteOrderMark,
        JsonFault::Syntax,
        JsonFault::TrailingBytes,
        JsonFault::Unrepresentable,
        JsonFault::DuplicateKey,
        JsonFault::TwinKey,
        JsonFault::KeyControlCharacter,
        JsonFault::TooDeep,
    ];

    /// A fixed word for logs and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            JsonFault::NotUtf8 => "not_utf8",
            JsonFault::ByteOrderMark => "byte_order_mark",
            JsonFault::Syntax => "syntax",
            JsonFault::TrailingBytes => "trailing_bytes",
            JsonFault::Unrepresentable => "unrepresentable",
            JsonFault::DuplicateKey => "duplicate_key",
            JsonFault::TwinKey => "twin_key",
            JsonFault::KeyControlCharacter => "key_control_character",
            JsonFault::TooDeep => "too_deep",
        }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error for JsonFault {}

/// Reads one JSON document whole and keeps what stands at the wanted pointers.
///
/// Where a pointer passes through an array, its token is an index without leading zeros; where it passes through an object, a key. A key
/// that is itself wanted is not a twin of another wanted one.
///
/// Time is linear in the body (n log n for the keys of a large object); memory is linear in the keys of the open objects, and the stack is
/// bounded by the depth.
///
/// # Errors
/// The first [`JsonFault`] met. Keys are compared when their object ends, so a fault further inside or in front of that end is named first.
pub fn read<'a>(body: &'a [u8], wanted: &Pointers) -> Result<Found<'a>, JsonFault> {
    let text = str::from_utf8(body).map_err(|_| JsonFault::NotUtf8)?;
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err(JsonFault::ByteOrderMark);
    }
    let mut reader = Reader::new(text, wanted);
    reader.document(&wanted.root)?;
    Ok(Found { values: reader.values })
}

const BYTE_ORDER_MARK: char = '\u{feff}';

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::iter;

    use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

    use super::reader::FEW_KEYS;
    use super::*;

    const TOKEN: &str = "3dc8fe01-2018-486e-9632-35aef21028a5";

    #[test]
    fn a_wallet_body_gives_its_values() {
        let body = format!(r#"{{"token":"{TOKEN}","player_id":18446744073709551615,"live":true}}"#);
        let found = found(&body, &["/token", "/player_id", "/live", "/absent"]);
        assert_eq!(found.at(0), Some(&Value::String(TOKEN.into())));
        assert_eq!(found.at(1), Some(&Value::Number("18446744073709551615")));
        assert_eq!(found.at(2), Some(&Value::Bool(true)));
        assert_eq!(found.at(3), None);
    }

    #[test]
    fn the_body_of_a_valkyrie_refresh_is_the_null_it_sends() {
        assert_eq!(only("null", ""), Some(Value::Null));
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        let borrowed = matches!(only(r#"{"token":"abc"}"#, "/token"), Some(Value::String(Cow::Borrowed("abc"))));
        assert!(borrowed);
    }

    #[test]
    fn a_slot_beyond_the_wanted_ones_is_empty() {
        assert_eq!(found("{}", &["/a"]).at(7), None);
    }

    #[test]
    fn a_wanted_object_and_a_value_inside_it_are_both_found() {
        let found = found(r#"{"a":{"b":[1,{"c":2.50}]}}"#, &["", "/a", "/a/b/1/c"]);
        assert_eq!(found.at(0), Some(&Value::Object));
        assert_eq!(found.at(1), Some(&Value::Object));
        assert_eq!(found.at(2), Some(&Value::Number("2.50")));
    }

    #[test]
    fn numbers_keep_their_literal() {
        let literals =
            "0 -0 1.0 1e3 1E+3 1.50e-2 1e-999 9007199254740993 18446744073709551615 123456789012345678901234567890";
        for literal in literals.split(' ') {
            let body = format!("{{\"id\" : {literal} }}");
            assert_eq!(only(&body, "/id"), Some(Value::Number(literal)), "{literal}");
        }
    }

    #[test]
    fn an_array_index_selects_an_element() {
        let found = found(r#"["a","b"]"#, &["/0", "/1", "/2"]);
        assert_eq!(found.at(0), Some(&Value::String("a".into())));
        assert_eq!(found.at(1), Some(&Value::String("b".into())));
        assert_eq!(found.at(2), None);
    }

    #[test]
    fn what_is_not_an_array_index_selects_no_element() {
        for pointer in ["/00", "/01", "/+1", "/-", "/ 1", "/", "/18446744073709551616"] {
            assert_eq!(only(r#"["a","b"]"#, pointer), None, "{pointer}");
        }
    }

    #[test]
    fn digits_are_a_key_in_an_object() {
        assert_eq!(only(r#"{"01":true}"#, "/01"), Some(Value::Bool(true)));
    }

    #[test]
    fn the_examples_of_rfc_6901_are_found() {
        let body = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, value) in [
            ("", Value::Object),
            ("/foo", Value::Array),
            ("/foo/0", Value::String("bar".into())),
            ("/", Value::Number("0")),
            ("/a~1b", Value::Number("1")),
            ("/c%d", Value::Number("2")),
            ("/e^f", Value::Number("3")),
            ("/g|h", Value::Number("4")),
            ("/i\\j", Value::Number("5")),
            ("/k\"l", Value::Number("6")),
            ("/ ", Value::Number("7")),
            ("/m~0n", Value::Number("8")),
        ] {
            assert_eq!(only(body, pointer), Some(value), "{pointer}");
        }
    }

    #[test]
    fn tilde_01_is_a_tilde_and_a_one() {
        assert_eq!(only(r#"{"~1":true}"#, "/~01"), Some(Value::Bool(true)));
    }

    #[test]
    fn a_pointer_prints_as_it_was_written() {
        let text = "/a~1b/~01/0";
        assert_eq!(pointer(text).to_string(), text);
    }

    #[test]
    fn malformed_pointers_are_refused() {
        for text in ["token", " /token", "#/token", "/~", "/~2", "/a~/b", "/~~0"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_pointer_has_the_same_slot() {
        let mut pointers = Pointers::default();
        assert!(pointers.is_empty());
        assert_eq!(pointers.want(&pointer("/a/b")), 0);
        assert_eq!(pointers.want(&pointer("/a")), 1);
        assert_eq!(pointers.want(&pointer("/a/b")), 0);
        assert_eq!(pointers.want(&pointer("")), 2);
        assert_eq!(pointers.len(), 3);
    }

    #[test]
    fn debug_prints_no_content() {
        let found = found(r#"{"a":"secret","b":271828,"c":"\u0073ecret"}"#, &["/a", "/b", "/c"]);
        assert_eq!(format!("{found:?}"), "Found { values: [Some(String(..)), Some(Number(..)), Some(String(..))] }");
    }

    // threat: E1
    #[test]
    fn a_key_given_twice_is_refused() {
        for body in [
            r#"{"token":"a","token":"a"}"#,
            r#"{"token":"a","tok\u0065n":"b"}"#,
            r#"{"tok\u0065n":"a","\u0074oken":"b"}"#,
            r#"{"token":"a","token":null}"#,
            r#"{"token":{},"token":[]}"#,
            r#"{"data":{"token":"a"},"token":"t","data":{"token":"b"}}"#,
            r#"{"data":{"token":"a","token":"b"}}"#,
            r#"{"":1,"":1}"#,
            r#"{"unwanted":[[{"deep":{"x":1,"x":1}}]]}"#,
        ] {
            assert_eq!(fault(body, &["/token", "/data/token"]), JsonFault::DuplicateKey, "{body}");
        }
    }

    // threat: E1
    #[test]
    fn a_key_given_twice_is_refused_inside_a_wanted_value() {
        let body = r#"{"token":{"a":[{"b":1,"b":2}]}}"#;
        assert_eq!(fault(body, &["/token"]), JsonFault::DuplicateKey);
    }

    // threat: E1
    #[test]
    fn a_key_given_twice_is_refused_however_far_apart() {
        for between in [1, FEW_KEYS - 2, FEW_KEYS - 1, FEW_KEYS, 1_000] {
            let members = many_members(between);
            let body = format!(r#"{{"token":"a",{members},"token":"b"}}"#);
            assert_eq!(fault(&body, &["/token"]), JsonFault::DuplicateKey, "{between}");
        }
    }

    // threat: E1
    #[test]
    fn many_different_keys_are_read() {
        for count in [1, FEW_KEYS - 1, FEW_KEYS, FEW_KEYS + 1, 1_000] {
            let members = many_members(count);
            let body = format!(r#"{{{members},"token":"a"}}"#);
            assert_eq!(only(&body, "/token"), Some(Value::String("a".into())), "{count}");
        }
    }

    #[test]
    fn the_same_key_in_different_objects_is_no_duplicate() {
        let body = r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}],"c":{"a":3,"b":4}}"#;
        assert_eq!(only(body, "/c/a"), Some(Value::Number("3")));
    }

    // threat: E2
    #[test]
    fn an_escaped_key_or_value_gives_the_same_token() {
        for body in [
            r#"{"tok\u0065n":"a/b"}"#,
            r#"{"token":"a\/b"}"#,
            r#"{"\u0074\u006f\u006b\u0065\u006e":"\u0061\u002F\u0062"}"#,
        ] {
            assert_eq!(only(body, "/token"), Some(Value::String("a/b".into())), "{body}");
        }
    }

    // threat: E3
    #[test]
    fn a_case_twin_of_a_wanted_key_is_refused() {
        for key in ["Token", "TOKEN", "tokeN", r"to\u212Aen", "to\u{212a}en", r"\u0054oken"] {
            let beside = format!(r#"{{"token":"a","{key}":"b"}}"#);
            assert_eq!(fault(&beside, &["/token"]), JsonFault::TwinKey, "{beside}");
            let alone = format!(r#"{{"{key}":"b"}}"#);
            assert_eq!(fault(&alone, &["/token"]), JsonFault::TwinKey, "{alone}");
        }
    }

    // threat: E3
    #[test]
    fn twins_that_only_upper_casing_shows_are_refused() {
        for (wanted, key) in [
            ("/status", "\u{17f}tatus"),
            ("/provider_id", "prov\u{131}der_id"),
            ("/pa\u{df}", "PASS"),
            ("/\u{1e9e}", "\u{df}"),
            ("/\u{3c3}", "\u{3c2}"),
        ] {
            let body = format!(r#"{{"{key}":1}}"#);
            assert_eq!(fault(&body, &[wanted]), JsonFault::TwinKey, "{body}");
        }
    }

    // threat: E3
    #[test]
    fn a_twin_on_the_way_to_a_wanted_value_is_refused() {
        for body in [r#"{"Data":{"token":"a"}}"#, r#"{"data":{"Token":"a"}}"#, r#"{"data":[{"token":"a"}],"DATA":1}"#] {
            assert_eq!(fault(body, &["/data", "/data/token"]), JsonFault::TwinKey, "{body}");
        }
    }

    // threat: E3
    #[test]
    fn a_twin_in_an_element_of_an_array_is_refused() {
        let body = r#"[{"Token":"a"},{"Token":"b"}]"#;
        assert_eq!(fault(body, &["/1/token"]), JsonFault::TwinKey);
    }

    #[test]
    fn keys_that_differ_in_case_where_nothing_is_wanted_are_read() {
        let body = r#"{"a":1,"A":2,"data":{"Token":"x","token":"y"},"token":"z"}"#;
        assert_eq!(only(body, "/token"), Some(Value::String("z".into())));
    }

    #[test]
    fn a_key_that_is_wanted_itself_is_no_twin() {
        let found = found(r#"{"id":1,"ID":2}"#, &["/id", "/ID"]);
        assert_eq!(found.at(0), Some(&Value::Number("1")));
        assert_eq!(found.at(1), Some(&Value::Number("2")));
    }

    // threat: E4
    #[test]
    fn a_control_character_in_a_key_is_refused_at_any_depth() {
        for body in [
            r#"{"token\u0000":"a"}"#,
            r#"{"token":"a","token\u0000":"b"}"#,
            r#"{"a\nb":1}"#,
            r#"{"a\u001fb":1}"#,
            r#"{"a\u007fb":1}"#,
            "{\"a\u{7f}b\":1}",
            r#"[[{"x":{"\t":1}}]]"#,
        ] {
            assert_eq!(fault(body, &["/token"]), JsonFault::KeyControlCharacter, "{body}");
        }
    }

    // threat: E4
    #[test]
    fn a_control_character_in_a_key_is_refused_wherever_it_stands() {
        for (filler, at) in
            ["x", "~", "\u{a0}", "\u{20ac}"].into_iter().flat_map(|one| (0..20).map(move |at| (one, at)))
        {
            for control in ["\u{7f}", "\\u007f", "\\u0000", "\\u001f", "\\n"] {
                let key = format!("{}{control}{}", filler.repeat(at), filler.repeat(20 - at));
                assert_eq!(fault(&format!("{{\"{key}\":1}}"), &["/token"]), JsonFault::KeyControlCharacter, "{key:?}");
            }
        }
    }

    // threat: E4
    #[test]
    fn an_escaped_control_character_in_a_value_is_read() {
        assert_eq!(only(r#"{"token":"a\u0000b"}"#, "/token"), Some(Value::String("a\0b".into())));
    }

    // threat: E4
    #[test]
    fn a_lone_surrogate_is_refused_anywhere() {
        for body in [
            r#"{"token":"\ud800"}"#,
            r#"{"token":"\udc00"}"#,
            r#"{"token":"\ud800\u0041"}"#,
            r#"{"token":"\udc00\ud800"}"#,
            r#"{"token":"\ud83d"}"#,
            r#"{"token":"a","other":"\ud800x"}"#,
            r#"{"token":"a","\udfff":1}"#,
            r#"{"token":"a","deep":[{"x":["\uDBFF"]}]}"#,
        ] {
            assert_eq!(fault(body, &["/token"]), JsonFault::Unrepresentable, "{body}");
        }
    }

    // threat: E4
    #[test]
    fn a_surrogate_pair_is_one_character() {
        assert_eq!(only(r#"{"token":"\ud83d\ude00"}"#, "/token"), Some(Value::String("\u{1f600}".into())));
    }

    // threat: E4
    #[test]
    fn bytes_that_are_not_utf_8_are_refused_anywhere() {
        for (name, bytes) in [
            ("overlong slash", &b"\xc0\xaf"[..]),
            ("overlong NUL", b"\xe0\x80\x80"),
            ("lone continuation", b"\x80"),
            ("cut short", b"\xe2\x82"),
            ("CESU-8 pair", b"\xed\xa0\xbd\xed\xb8\x80"),
            ("beyond U+10FFFF", b"\xf4\x90\x80\x80"),
            ("never a byte", b"\xff"),
        ] {
            for (before, behind) in [
                (&b"{\"token\":\""[..], &b"\"}"[..]),
                (b"{\"token\":1,\"ignored\":[\"", b"\"]}"),
                (b"{\"", b"\":1}"),
                (b"{\"token\":1}", b""),
                (b"", b"{}"),
            ] {
                let body = [before, bytes, behind].concat();
                let fault = read(&body, &wanting(&["/token"])).err();
                assert_eq!(fault, Some(JsonFault::NotUtf8), "{name}");
            }
        }
    }

    // threat: E5
    #[test]
    fn a_byte_order_mark_is_refused() {
        assert_eq!(fault("\u{feff}{\"token\":1}", &["/token"]), JsonFault::ByteOrderMark);
    }

    // threat: E5
    #[test]
    fn utf_16_and_utf_32_are_refused() {
        let text = r#"{"token":"a"}"#;
        let units: Vec<u16> = text.encode_utf16().collect();
        let wide: Vec<u32> = text.chars().map(u32::from).collect();
        for (body, refusal) in [
            (units.iter().flat_map(|u| u.to_le_bytes()).collect(), JsonFault::Syntax),
            (units.iter().flat_map(|u| u.to_be_bytes()).collect(), JsonFault::Syntax),
            (wide.iter().flat_map(|c| c.to_le_bytes()).collect(), JsonFault::Syntax),
            (wide.iter().flat_map(|c| c.to_be_bytes()).collect(), JsonFault::Syntax),
            (iter::once(0xfeff).chain(units.iter().copied()).flat_map(u16::to_le_bytes).collect(), JsonFault::NotUtf8),
        ] {
            let body: Vec<u8> = body;
            assert_eq!(read(&body, &wanting(&["/token"])).err(), Some(refusal), "{body:?}");
        }
    }

    // threat: E6
    #[test]
    fn bytes_behind_the_document_are_refused() {
        for behind in [
            "{}",
            "x",
            "\0",
            ",",
            "}",
            "]",
            "null",
            "//",
            "\u{a0}",
            "\u{b}",
            "\u{c}",
            "\u{2028}",
            "\u{feff}",
            " \n {\"token\":2}",
        ] {
            let body = format!(r#"{{"token":1}}{behind}"#);
            assert_eq!(fault(&body, &["/token"]), JsonFault::TrailingBytes, "{body:?}");
        }
    }

    // threat: E6
    #[test]
    fn whitespace_around_the_document_is_read() {
        let body = " \t\r\n{ \"token\"\n:\t1\r} \t\r\n";
        assert_eq!(only(body, "/token"), Some(Value::Number("1")));
    }

    // threat: E6
    #[test]
    fn what_is_not_json_is_refused() {
        for (what, bodies) in [
            ("nothing", "| "),
            ("blanks", "\u{a0}{}|\u{b}{}|\u{2028}{}|{\"token\":\u{a0}1}"),
            ("words", "tru|nulL|True|undefined|NaN|Infinity|-Infinity|{\"token\":NaN}"),
            ("numbers", "-|+1|01|-01|1.|.5|1e|1e+|[0x10]|[1_0]|{\"token\":01}|{\"token\":1 0}"),
            ("strings", "'a'|\"a|\"\\\"|\"\\x41\"|\"\\u12\"|\"\\u12G4\"|\"\\u{41}\"|{\"token\":'a'}"),
            ("control bytes", "\"a\nb\"|\"a\tb\"|\"\0\"|\"\u{1f}\"|[\"a\n\"]|{\"a\nb\":1}"),
            ("arrays", "[|]|[1,]|[,1]|[1 2]|[1}"),
            ("objects", "{|{\"a\"}|{\"a\":}|{\"a\":1,}|{,\"a\":1}|{\"a\":1 \"b\":2}|{\"a\" 1}|{\"a\"::1}|{\"a\":1]"),
            ("keys", "{a:1}|{'a':1}|{1:1}|{null:1}"),
            ("comments", "{\"a\":1/**/}|{\"a\":1//\n}|{/**/}|#\n{}"),
        ] {
            for body in bodies.split('|') {
                assert_eq!(fault(body, &["/token"]), JsonFault::Syntax, "{what}: {body:?}");
            }
        }
    }

    // threat: E7
    #[test]
    fn sixty_four_levels_are_read() {
        for pointers in [&[][..], &["/0/0"], &[""]] {
            let body = format!("{}{}", "[".repeat(64), "]".repeat(64));
            assert!(read(body.as_bytes(), &wanting(pointers)).is_ok());
        }
        let body = format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64));
        assert_eq!(only(&body, "/a/a"), Some(Value::Object));
    }

    // threat: E7
    #[test]
    fn sixty_five_levels_are_refused() {
        for pointers in [&[][..], &["/0/0"], &[""], &["/a/a"]] {
            for body in [
                format!("{}{}", "[".repeat(65), "]".repeat(65)),
                format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65)),
                format!("{}{{}}{}", "[".repeat(64), "]".repeat(64)),
                "[".repeat(64) + "{\"b\":[]}" + &"]".repeat(64),
            ] {
                assert_eq!(fault(&body, pointers), JsonFault::TooDeep, "{pointers:?}");
            }
        }
    }

    // threat: E7
    #[test]
    fn a_flood_of_brackets_is_refused() {
        for (body, pointer, refusal) in [
            ("[".repeat(1_000_000), "/token", JsonFault::TooDeep),
            ("{\"a\":".repeat(200_000), "/token", JsonFault::TooDeep),
            ("[".repeat(500_000) + &"]".repeat(500_000), "", JsonFault::TooDeep),
            ("[".repeat(1_000_000), "", JsonFault::TooDeep),
            ("{\"token\":".to_owned() + &"[".repeat(500_000), "/token", JsonFault::TooDeep),
        ] {
            assert_eq!(fault(&body, &[pointer]), refusal);
        }
    }

    // threat: E8
    #[test]
    fn a_number_beyond_a_64_bit_float_is_refused_anywhere() {
        for literal in ["1e999", "-1e999", "1e99999999999999999999", "1.8e308"] {
            for body in [
                literal.to_owned(),
                format!(r#"{{"token":{literal}}}"#),
                format!(r#"{{"token":1,"other":[{literal}]}}"#),
            ] {
                assert_eq!(fault(&body, &["/token"]), JsonFault::Unrepresentable, "{body}");
            }
        }
    }

    // threat: E8
    #[test]
    fn large_documents_are_read_to_their_end() {
        let members = many_members(20_000);
        let long = "k".repeat(500_000);
        for (name, body) in [
            ("20,000 keys", format!(r#"{{{members},"token":1}}"#)),
            ("500 kB key", format!(r#"{{"{long}":0,"token":1}}"#)),
            ("two 500 kB keys", format!(r#"{{"{long}":0,"{long}k":0,"token":1}}"#)),
            ("500 kB non-ASCII key", format!(r#"{{"{}":0,"token":1}}"#, "\u{212a}".repeat(166_000))),
            ("500 kB escaped key", format!(r#"{{"{}":0,"token":1}}"#, "\\u006b".repeat(83_000))),
            ("1 MB blanks", format!(r#"{{"token":{}1}}"#, " ".repeat(1_000_000))),
            ("1 MB string", format!(r#"{{"s":"{}","token":1}}"#, "s".repeat(1_000_000))),
            ("1 MB of objects", format!(r#"{{"s":[{}0],"token":1}}"#, "{},".repeat(333_000))),
            ("1 MB of digits", format!(r#"{{"n":0.{},"token":1}}"#, "7".repeat(1_000_000))),
        ] {
            assert_eq!(only(&body, "/token"), Some(Value::Number("1")), "{name}");
        }
    }

    // threat: E9
    #[test]
    fn a_token_of_another_kind_is_told_apart_from_a_string() {
        for (literal, value) in [
            ("1", Value::Number("1")),
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            (r#"["a"]"#, Value::Array),
            (r#"{"token":"a"}"#, Value::Object),
            (r#""1""#, Value::String("1".into())),
            (r#""""#, Value::String("".into())),
        ] {
            let body = format!(r#"{{"token":{literal}}}"#);
            assert_eq!(only(&body, "/token"), Some(value), "{body}");
        }
    }

    // threat: E9
    #[test]
    fn a_token_is_given_decoded() {
        for (literal, token) in [
            (r"\u0061", "a"),
            (r"a\u0000", "a\0"),
            ("a\u{7f}", "a\u{7f}"),
            (r"\u00e9", "\u{e9}"),
            ("\u{e9}", "\u{e9}"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
        ] {
            let body = format!(r#"{{"token":"{literal}"}}"#);
            assert_eq!(only(&body, "/token"), Some(Value::String(token.into())), "{body}");
        }
    }

    // threat: E12
    #[test]
    fn no_part_of_a_document_is_read_as_a_document() {
        let body = "{\"tok\\u0065n\":\"\u{20ac}\\ud83d\\ude00\\\"\",\"n\":[1,true]}".as_bytes();
        let wanted = wanting(&["/token"]);
        assert!(read(body, &wanted).is_ok());
        for cut in 0..body.len() {
            let (first, second) = body.split_at(cut);
            assert!(read(first, &wanted).is_err(), "up to {cut}");
            if cut > 0 {
                assert!(read(second, &wanted).is_err(), "from {cut}");
            }
        }
    }

    #[test]
    fn every_fault_has_its_own_word() {
        let mut words: Vec<_> = EVERY_FAULT.iter().map(|fault| fault.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), EVERY_FAULT.len());
    }

    // threat: D4
    #[test]
    fn compaction_leaves_out_whitespace_outside_of_strings_only() {
        for (body, compacted) in [
            ("", ""),
            (" \t\r\n", ""),
            ("{}", "{}"),
            (" { \"a b\" :\t[ 1 ,\r\n2 ] }\n", "{\"a b\":[1,2]}"),
            (r#"{ "a\" b" : 1 }"#, r#"{"a\" b":1}"#),
            (r#"{ "a\\" : " b" }"#, r#"{"a\\":" b"}"#),
            (r#"[ "\\\" x" , " " ]"#, r#"["\\\" x"," "]"#),
            (r#"{ "a" : 1.0, "b": 1e3, "c": "\u0041 " }"#, r#"{"a":1.0,"b":1e3,"c":"\u0041 "}"#),
            ("\"a\tb\" \"c\nd\"", "\"a\tb\"\"c\nd\""),
        ] {
            assert_eq!(compacted_text(body.as_bytes()), compacted, "{body:?}");
        }
    }

    // threat: D5
    #[test]
    fn compaction_joins_what_reading_refuses() {
        assert_eq!(compacted_text(b"[1 0]"), "[10]");
        assert_eq!(fault("[1 0]", &[]), JsonFault::Syntax);
    }

    // threat: D6
    #[test]
    fn compaction_keeps_what_is_not_json_whitespace() {
        let body = "\u{a0}{\u{b}\u{c}\u{2028}\0}\u{85}\u{3000}";
        assert_eq!(compacted_text(body.as_bytes()), body);
    }

    #[test]
    fn compaction_runs_to_the_end_of_an_unterminated_string() {
        for body in ["\" a b ", "\"\\", "\"a\\\" b ", "[\"a\", \"b "] {
            let expected = body.replace(", ", ",");
            assert_eq!(compacted_text(body.as_bytes()), expected, "{body:?}");
        }
    }

    #[test]
    fn a_backslash_outside_of_a_string_escapes_nothing_in_compaction() {
        assert_eq!(compacted_text(b"\\\" a \" b"), "\\\" a \"b");
    }

    #[test]
    fn compaction_works_on_any_bytes() {
        let body = b"\xff \xc0\xaf\t\"\xff \"\x00 ";
        let compacted: Vec<u8> = compact(body).flatten().copied().collect();
        assert_eq!(compacted, b"\xff\xc0\xaf\"\xff \"\x00");
    }

    #[test]
    fn a_body_without_whitespace_is_one_slice() {
        let body = b"{\"a\":[1,\"b c\"]}";
        assert_eq!(compact(body).collect::<Vec<_>>(), [&body[..]]);
    }

    #[test]
    fn compaction_changes_no_value_of_an_accepted_document() {
        let mut compared = 0;
        for body in mutants() {
            if read(&body, &wanting(&[])).is_ok() {
                let compacted: Vec<u8> = compact(&body).flatten().copied().collect();
                assert_eq!(library_value(&compacted), library_value(&body));
                compared += 1;
            }
        }
        assert!(compared > 500, "{compared}");
    }

    #[test]
    fn whatever_is_accepted_serde_json_accepts_with_the_same_values() {
        for pointers in [&MUTANT_POINTERS[..], &MUTANT_POINTERS[1..]] {
            let wanted = wanting(pointers);
            let mut compared = 0;
            for body in mutants() {
                let Ok(found) = read(&body, &wanted) else {
                    continue;
                };
                let value = library_value(&body).unwrap_or_else(|| panic!("{}", body.escape_ascii()));
                for (slot, pointer) in pointers.iter().enumerate() {
                    let (ours, theirs) = (found.at(slot), value.pointer(pointer));
                    let body = body.escape_ascii();
                    assert_eq!(ours.map(in_words), theirs.map(library_in_words), "{pointer} in {body}");
                    compared += usize::from(slot > 0 && theirs.is_some());
                }
            }
            assert!(compared > 300, "{compared}");
        }
    }

    #[test]
    fn whatever_serde_json_accepts_is_refused_for_our_own_reasons_alone() {
        for pointers in [&MUTANT_POINTERS[..], &MUTANT_POINTERS[1..]] {
            let wanted = wanting(pointers);
            for body in mutants() {
                let Ok(tree) = serde_json::from_slice::<Tree>(&body) else {
                    continue;
                };
                let reasons = tree.reasons();
                match read(&body, &wanted) {
                    Ok(_) => assert_eq!(reasons, [], "{}", body.escape_ascii()),
                    Err(fault) => assert!(reasons.contains(&fault), "{fault}: {}", body.escape_ascii()),
                }
            }
        }
    }

    #[test]
    fn the_mutants_meet_every_fault() {
        let wanted = wanting(&MUTANT_POINTERS);
        let faults: Vec<_> = mutants().iter().filter_map(|body| read(body, &wanted).err()).collect();
        for fault in EVERY_FAULT {
            let times = faults.iter().filter(|met| **met == fault).count();
            assert!(times >= 10, "{fault}: {times}");
        }
    }

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a pointer")
    }

    fn wanting(pointers: &[&str]) -> Pointers {
        let mut wanted = Pointers::default();
        for text in pointers {
            wanted.want(&pointer(text));
        }
        wanted
    }

    fn found<'a>(body: &'a str, pointers: &[&str]) -> Found<'a> {
        read(body.as_bytes(), &wanting(pointers)).expect("a document")
    }

    fn only<'a>(body: &'a str, pointer: &str) -> Option<Value<'a>> {
        found(body, &[pointer]).at(0).cloned()
    }

    fn fault(body: &str, pointers: &[&str]) -> JsonFault {
        read(body.as_bytes(), &wanting(pointers)).expect_err("a fault")
    }

    fn many_members(count: usize) -> String {
        let members: Vec<_> = (0..count).map(|n| format!("\"key{n}\":{n}")).collect();
        members.join(",")
    }

    fn compacted_text(body: &[u8]) -> String {
        let compacted: Vec<u8> = compact(body).flatten().copied().collect();
        String::from_utf8(compacted).expect("text")
    }

    fn library_value(body: &[u8]) -> Option<serde_json::Value> {
        serde_json::from_slice(body).ok()
    }

    fn in_words(value: &Value<'_>) -> String {
        match value {
            Value::Null => "null".to_owned(),
            Value::Bool(truth) => format!("bool {truth}"),
            Value::Number(literal) => {
                let number: serde_json::Number = serde_json::from_str(literal).expect("a number");
                format!("number {number}")
            }
            Value::String(text) => format!("string {text}"),
            Value::Array => "array".to_owned(),
            Value::Object => "object".to_owned(),
        }
    }

    fn library_in_words(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Null => "null".to_owned(),
            serde_json::Value::Bool(truth) => format!("bool {truth}"),
            serde_json::Value::Number(number) => format!("number {number}"),
            serde_json::Value::String(text) => format!("string {text}"),
            serde_json::Value::Array(_) => "array".to_owned(),
            serde_json::Value::Object(_) => "object".to_owned(),
        }
    }

    /// The same few thousand documents every time: random ones of a grammar that likes our keys, most of them damaged afterwards.
    fn mutants() -> Vec<Vec<u8>> {
        let mut dice = Dice(20_261_121);
        (0..6_000)
            .map(|_| {
                let mut body = Vec::new();
                dice.grow(&mut body, 0);
                for _ in 0..dice.roll(4) {
                    dice.damage(&mut body);
                }
                body
            })
            .collect()
    }

    /// A linear congruential generator (Knuth's MMIX constants).
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % sides
        }

        fn pick<'s>(&mut self, list: &'s [u8]) -> &'s [u8] {
            let items: Vec<_> = list.split(|byte| *byte == b'|').collect();
            items[self.roll(items.len())]
        }

        fn grow(&mut self, body: &mut Vec<u8>, depth: usize) {
            body.extend_from_slice(self.pick(BLANKS));
            let kind = if depth == 0 { 4 } else { self.roll(6) };
            match kind {
                4 if depth < 5 => {
                    body.push(b'{');
                    for n in 0..self.roll(6) {
                        if n > 0 {
                            body.push(b',');
                        }
                        body.extend_from_slice(self.pick(BLANKS));
                        body.push(b'"');
                        body.extend_from_slice(self.pick(KEYS));
                        body.extend_from_slice(b"\":");
                        self.grow(body, depth + 1);
                    }
                    body.push(b'}');
                }
                5 if depth < 5 => {
                    body.push(b'[');
                    for n in 0..self.roll(4) {
                        if n > 0 {
                            body.push(b',');
                        }
                        self.grow(body, depth + 1);
                    }
                    body.push(b']');
                }
                _ => body.extend_from_slice(self.pick(SCALARS)),
            }
            body.extend_from_slice(self.pick(BLANKS));
        }

        fn damage(&mut self, body: &mut Vec<u8>) {
            let from = self.roll(body.len() + 1);
            let to = (from + self.roll(8)).min(body.len());
            match self.roll(16) {
                0..6 => {
                    let piece = self.pick(PIECES);
                    body.splice(from..from, piece.iter().copied());
                }
                6..8 => {
                    let piece = self.pick(PIECES);
                    body.splice(from..to, piece.iter().copied());
                }
                8 => {
                    body.drain(from..to);
                }
                9 => {
                    let copy = body[from..to].to_vec();
                    body.splice(to..to, copy);
                }
                10 => {
                    let byte = self.roll(256) as u8;
                    body.splice(from..from, [byte]);
                }
                11 => body.truncate(from),
                12 => {
                    let levels = 55 + self.roll(20);
                    body.splice(0..0, iter::repeat_n(b'[', levels));
                    body.extend(iter::repeat_n(b']', levels));
                }
                13 => {
                    body.splice(0..0, *b"{\"data\":");
                    body.push(b'}');
                }
                14 => body.extend_from_slice(self.pick(PIECES)),
                _ => {
                    body.splice(0..0, *b"\xef\xbb\xbf");
                }
            }
        }
    }

    /// What the library read, with every member as it came: the slow and obvious way to find our own reasons to refuse.
    enum Tree {
        Leaf,
        Array(Vec<Tree>),
        Object(Vec<(String, Tree)>),
    }

    impl Tree {
        fn reasons(&self) -> Vec<JsonFault> {
            let pointers = MUTANT_POINTERS.map(pointer);
            let wanted: Vec<_> = pointers.iter().map(|p| p.tokens.as_slice()).collect();
            let mut reasons = Vec::new();
            if self.depth() > 64 {
                reasons.push(JsonFault::TooDeep);
            }
            let mut objects = Vec::new();
            self.gather(&mut objects);
            if objects.iter().any(|keys| keys.iter().collect::<HashSet<_>>().len() < keys.len()) {
                reasons.push(JsonFault::DuplicateKey);
            }
            if objects.concat().iter().any(|key| key.contains(|c| c < ' ' || c == '\u{7f}')) {
                reasons.push(JsonFault::KeyControlCharacter);
            }
            if self.has_twins(&wanted) {
                reasons.push(JsonFault::TwinKey);
            }
            reasons
        }

        fn depth(&self) -> usize {
            match self {
                Tree::Leaf => 0,
                Tree::Array(elements) => 1 + elements.iter().map(Tree::depth).max().unwrap_or_default(),
                Tree::Object(members) => {
                    let depths = members.iter().map(|(_, member)| member.depth());
                    1 + depths.max().unwrap_or_default()
                }
            }
        }

        /// The keys of every object.
        fn gather<'t>(&'t self, objects: &mut Vec<Vec<&'t str>>) {
            match self {
                Tree::Leaf => {}
                Tree::Array(elements) => elements.iter().for_each(|element| element.gather(objects)),
                Tree::Object(members) => {
                    objects.push(members.iter().map(|(key, _)| key.as_str()).collect());
                    members.iter().for_each(|(_, member)| member.gather(objects));
                }
            }
        }

        fn has_twins(&self, wanted: &[&[String]]) -> bool {
            let behind = |key: &str| -> Vec<&[String]> {
                let paths = wanted.iter().filter_map(|path| path.split_first());
                let chosen = paths.filter(|(first, _)| *first == key);
                chosen.map(|(_, rest)| rest).collect()
            };
            match self {
                Tree::Leaf => false,
                Tree::Array(elements) => {
                    let mut numbered = elements.iter().enumerate();
                    numbered.any(|(n, element)| element.has_twins(&behind(&n.to_string())))
                }
                Tree::Object(members) => members.iter().any(|(key, member)| {
                    let mut firsts = wanted.iter().filter_map(|path| path.first());
                    if firsts.clone().any(|first| first == key) {
                        member.has_twins(&behind(key))
                    } else {
                        firsts.any(|first| first.to_lowercase() == key.to_lowercase())
                    }
                }),
            }
        }
    }

    impl<'de> Deserialize<'de> for Tree {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
            deserializer.deserialize_any(TreeVisitor)
        }
    }

    struct TreeVisitor;

    impl<'de> Visitor<'de> for TreeVisitor {
        type Value = Tree;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON value")
        }

        fn visit_unit<E>(self) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }

        fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
            let mut tree = Vec::new();
            while let Some(element) = elements.next_element()? {
                tree.push(element);
            }
            Ok(Tree::Array(tree))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
            let mut tree = Vec::new();
            while let Some(member) = members.next_entry()? {
                tree.push(member);
            }
            Ok(Tree::Object(tree))
        }
    }

    const EVERY_FAULT: [JsonFault; 9] = [
        JsonFault::NotUtf8,
        JsonFault::ByteOrderMark,
        JsonFault::Syntax,
        JsonFault::TrailingBytes,
        JsonFault::Unrepresentable,
        JsonFault::DuplicateKey,
        JsonFault::TwinKey,
        JsonFault::KeyControlCharacter,
        JsonFault::TooDeep,
    ];

    const MUTANT_POINTERS: [&str; 8] = ["", "/token", "/data", "/data/token", "/a", "/a/0", "/a/1/token", "/data/a/b"];

    // Each is a list with `|` between its items.
    const BLANKS: &[u8] = b"||| |\n| \t\r\n ";
    const KEYS: &[u8] =
        b"token|data|a|b|c|d|e|f|g|h|0|1||x y|player_id|operator|site_id|tok\\u0065n|\\u0061|caf\xc3\xa9|\
        \\ud83d\\ude00|Token|to\xe2\x84\xaaen|k\\u0000|q\\\"|z\\\\";
    const SCALARS: &[u8] = b"null|true|false|0|-0|1|-17|18446744073709551615|18446744073709551616|1.0|1e3|0.1e-400|\
        1.7976931348623157e308|\"\"|\"abc\"|\"a b\"|\"\\\"\\\\\\n\"|\"\\u0041\\ud83d\\ude00\"|\"\xe2\x82\xac\"";
    const PIECES: &[u8] =
        b"{|}|[|]|,|:|\"|\\| |0|1|-|.|e|{}|[]|\"\"|null|1e999|NaN|\"token\":1,|,\"token\":2|\"Token\":1,|\
        ,\"TOKEN\":2|,\"tok\\u0065n\":3|,\"a\":[]|\\ud800|\\u0000|\\udc00|\x00|\x7f|\xff|\xc0\xaf|\xe2\x84\xaa|\xc3|//";
}

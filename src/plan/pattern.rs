//! Gitignore rules as text. The matcher that carries them out reads more than git does: braces are
//! alternatives to it, and to git letters like any others.

use std::borrow::Cow;

/// The rule for the matcher, with the meaning it has in git.
pub fn as_in_git(rule: &str) -> Cow<'_, str> {
    if !rule.contains(['{', '}']) {
        return Cow::Borrowed(rule);
    }
    let mut text = String::with_capacity(rule.len() + 2);
    for piece in pieces(rule) {
        if matches!(piece, "{" | "}") {
            text.push('\\');
        }
        text.push_str(piece);
    }
    Cow::Owned(text)
}

/// Why a pattern of a configuration cannot be meant. (In a rule file it would match nothing.)
pub fn check(pattern: &str) -> Result<(), String> {
    let told = |text: &str| Err(text.to_owned());
    if pattern.trim_start_matches('!').trim_matches(['/', ' ', '\t']).is_empty() {
        return told("an empty pattern matches nothing: leave it out");
    }
    if pattern.starts_with('#') {
        return told("this is a comment: write \\# for a name that begins with #");
    }
    if pattern.contains(['\n', '\r']) {
        return told("a pattern is one line: write a list of patterns");
    }
    if pattern.ends_with("\\/") {
        return told("a \\ cannot stand before the last /: write ? for it");
    }
    for piece in pieces(pattern) {
        if piece == "\\" {
            return told("nothing follows the last \\: write \\\\ for a backslash");
        }
        if piece == "[" {
            return told("the [ is not closed: write \\[ for a bracket");
        }
        if let Some(class) = piece.strip_prefix('[').and_then(|class| class.strip_suffix(']')) {
            check_ranges(class)?;
        }
    }
    Ok(())
}

fn check_ranges(class: &str) -> Result<(), String> {
    let letters: Vec<char> = class.trim_start_matches(['!', '^']).chars().collect();
    let mut at = 0;
    while at < letters.len() {
        let range = letters.get(at + 1) == Some(&'-');
        match letters.get(at + 2).filter(|_| range) {
            Some(last) if *last < letters[at] => {
                let first = letters[at];
                return Err(format!("the range {first}-{last} is empty: write {last}-{first}"));
            }
            Some(_) => at += 3,
            None => at += 1,
        }
    }
    Ok(())
}

/// A pattern cut into escaped letters, classes, braces, and what lies between.
fn pieces(pattern: &str) -> impl Iterator<Item = &str> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match rest.find(['\\', '[', '{', '}']) {
            None => rest.len(),
            Some(0) => special_bytes(rest),
            Some(at) => at,
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}

/// Length of what begins here with a special letter. A class that is not closed is none.
fn special_bytes(text: &str) -> usize {
    let after = &text[1..];
    if text.starts_with('\\') {
        return 1 + after.chars().next().map_or(0, char::len_utf8);
    }
    if !text.starts_with('[') {
        return 1;
    }
    // A `]` that comes first is a letter of the class.
    let negated = usize::from(after.starts_with(['!', '^']));
    let from = negated + usize::from(after[negated..].starts_with(']'));
    after[from..].find(']').map_or(1, |end| 1 + from + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_letters() {
        for (rule, expected) in [
            ("*.tmp", "*.tmp"),
            ("{x", "\\{x"),
            ("*.{a,b}", "*.\\{a,b\\}"),
            ("\\{x", "\\{x"),
            ("\\\\{x", "\\\\\\{x"),
            ("[{}]y}", "[{}]y\\}"),
            ("[]{]", "[]{]"),
            ("[{", "[\\{"),
            ("!/a/{b}/", "!/a/\\{b\\}/"),
        ] {
            assert_eq!(as_in_git(rule), expected, "{rule}");
        }
    }

    #[test]
    fn what_cannot_be_meant() {
        for pattern in
            ["", " ", "!", "/", "#recycle", "a\\", "a\\/", "[x", "[z-a]", "[!a-z9-0]", "a\nb"]
        {
            assert!(check(pattern).is_err(), "{pattern:?}");
        }
        let fine = ["{x", "\\[x", "\\#x", "a\\\\", "[a-z]", "[-a]", "[a-]", "[]-a]", "~$*", "!*.c"];
        for pattern in fine {
            assert_eq!(check(pattern), Ok(()), "{pattern:?}");
        }
    }
}

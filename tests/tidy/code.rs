//! Just enough of Rust's grammar to tell names in code from names in comments, strings and tests.
//!
//! No parser: a lexer that blanks what is not code, and a walk over the tokens that are left. That
//! keeps the rules independent of the compiler and of any crate.

/// A piece of code and the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The tokens of `source`: names and numbers whole, `::` as one, any other character alone.
pub fn tokens(source: &str) -> Vec<Token> {
    let blanked: Vec<char> = blank(source).chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < blanked.len() {
        let first = blanked[at];
        let start = at;
        at += 1;
        if first == '\n' {
            line += 1;
        }
        if first.is_whitespace() {
            continue;
        }
        if is_word(first) {
            while at < blanked.len() && is_word(blanked[at]) {
                at += 1;
            }
        } else if first == ':' && blanked.get(at) == Some(&':') {
            at += 1;
        }
        tokens.push(Token { text: blanked[start..at].iter().collect(), line });
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `source` with comments, strings and character literals replaced by spaces; lines stay lines.
fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    let after_word = at > 0 && is_word(chars[at - 1]);
    match (chars[at], next) {
        ('/', Some('/')) => line_comment_end(chars, at),
        ('/', Some('*')) => block_comment_end(chars, at),
        ('"', _) => string_end(chars, at),
        ('\'', _) => character_end(chars, at),
        ('r', Some('"' | '#')) if !after_word => raw_string_end(chars, at, at + 1),
        ('b' | 'c', Some('r')) if !after_word => raw_string_end(chars, at, at + 2),
        _ => at,
    }
}

fn line_comment_end(chars: &[char], at: usize) -> usize {
    (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0_usize, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    i
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `'a'` and `'\n'` are literals, `'a` is a lifetime.
fn character_end(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        return (at + 3..chars.len()).find(|&i| chars[i] == '\'').map_or(chars.len(), |i| i + 1);
    }
    if chars.get(at + 2) == Some(&'\'') { at + 3 } else { at }
}

/// A raw string whose hashes begin at `hashes_at`; a raw name such as `r#type` is none.
fn raw_string_end(chars: &[char], at: usize, hashes_at: usize) -> usize {
    let hashes = chars[hashes_at..].iter().take_while(|&&c| c == '#').count();
    if chars.get(hashes_at + hashes) != Some(&'"') {
        return at;
    }
    let closes = |i: usize| {
        chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (hashes_at + hashes + 1..chars.len())
        .find(|&i| closes(i))
        .map_or(chars.len(), |i| i + 1 + hashes)
}

/// The tokens without the modules, functions and other items marked `#[cfg(test)]`.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_test_mark(&tokens[at..]) {
            at = item_end(tokens, at + TEST_MARK.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The names of the modules declared `#[cfg(test)] mod name;`, which live in files of their own.
pub fn test_modules(tokens: &[Token]) -> Vec<String> {
    (0..tokens.len())
        .filter(|&at| is_test_mark(&tokens[at..]))
        .filter_map(|at| {
            let item = &tokens[at + TEST_MARK.len()..item_end(tokens, at + TEST_MARK.len())];
            let name = item.iter().position(|token| token.text == "mod")? + 1;
            (item.last()?.text == ";").then(|| item[name].text.clone())
        })
        .collect()
}

const TEST_MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

fn is_test_mark(tokens: &[Token]) -> bool {
    tokens.len() >= TEST_MARK.len()
        && tokens.iter().zip(TEST_MARK).all(|(token, wanted)| token.text == wanted)
}

/// The token after the item that begins at `start`: after its `;`, or after its outermost `}`.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && [";", "}"].contains(&token.text.as_str()) {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let source =
            "a /* b /* c */ d */ e // f\n g \"h \\\" i\" r#\"j \" k\"# 'l' '\\'' &'m n br\"o\"";
        assert_eq!(texts(source), ["a", "e", "g", "&", "'", "m", "n"]);
    }

    #[test]
    fn raw_names_stay_code() {
        assert_eq!(texts("r#type for_r r"), ["r", "#", "type", "for_r", "r"]);
    }

    #[test]
    fn tokens_know_their_lines() {
        let source = "a::b\n\"x\ny\"\nc";
        let lines: Vec<usize> = tokens(source).iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 1, 1, 4]);
    }

    #[test]
    fn test_items_are_left_out() {
        let source = "a; #[cfg(test)] mod tests { b { c } } d #[cfg(test)] mod e; f
                      #[cfg(test)] #[allow(x)] fn g() -> [u8; 2] { h; } i";
        let kept = without_tests(&tokens(source));
        let kept: Vec<&str> = kept.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(kept, ["a", ";", "d", "f", "i"]);
        assert_eq!(test_modules(&tokens(source)), ["e"]);
    }
}

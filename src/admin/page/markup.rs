//! HTML that is put together from what is written here and from text, which is escaped: there is no third way in.

/// A piece of a page.
#[derive(Default)]
pub struct Html(String);

/// A table: the first column names the row; `named` columns are text, those behind them numbers.
pub struct Table<'t> {
    /// What it shows.
    pub caption: &'static str,
    /// The heads of its columns.
    pub columns: &'t [&'static str],
    /// How many of them are text.
    pub named: usize,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
    /// What stands in its place when it has no rows.
    pub empty: &'static str,
}

impl Html {
    /// Markup that is written in the code.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, in an element or in an attribute's quotes.
    pub fn text(&mut self, text: &str) -> &mut Html {
        let mut left = LONGEST;
        for one in text.chars() {
            if left == 0 {
                self.0.push('…');
                break;
            }
            left -= 1;
            match one {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // They would not be seen, or would turn round what is.
                hidden if is_hidden(hidden) => self.0.push('\u{fffd}'),
                plain => self.0.push(plain),
            }
        }
        self
    }

    /// An element with nothing but text in it.
    pub fn element(&mut self, open: &'static str, text: &str, close: &'static str) -> &mut Html {
        self.raw(open).text(text).raw(close)
    }

    /// A table that can be scrolled sideways where it is wider than the page.
    pub fn table(&mut self, table: Table<'_>) -> &mut Html {
        if table.rows.is_empty() {
            self.element("<div><h3>", table.caption, "</h3>");
            return self.element("<p class=\"quiet\">", table.empty, "</p></div>\n");
        }
        self.element("<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"", table.caption, "\">");
        self.element("<table><caption>", table.caption, "</caption><thead><tr>");
        for (at, column) in table.columns.iter().enumerate() {
            let open = if at < table.named { "<th scope=\"col\">" } else { "<th scope=\"col\" class=\"n\">" };
            self.element(open, column, "</th>");
        }
        self.raw("</tr></thead><tbody>\n");
        for row in &table.rows {
            self.raw("<tr>");
            for (at, cell) in row.iter().enumerate() {
                match at {
                    0 => self.element("<th scope=\"row\">", cell, "</th>"),
                    _ if at < table.named => self.element("<td>", cell, "</td>"),
                    _ => self.element("<td class=\"n\">", cell, "</td>"),
                };
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody></table></div>\n")
    }

    /// One row of strokes for each of `series`, the oldest first, all on one scale; `title` says what is to be seen.
    pub fn sparkline(&mut self, title: &str, series: &[(&'static str, Vec<u64>)]) -> &mut Html {
        let length = series.iter().map(|(_, values)| values.len()).max().unwrap_or_default();
        let sums = (0..length).map(|at| series.iter().filter_map(|(_, values)| values.get(at)).sum::<u64>());
        let most = sums.max().unwrap_or_default().max(1);
        self.raw("<svg viewBox=\"0 0 240 40\" preserveAspectRatio=\"none\" role=\"img\"><title>").text(title);
        self.raw("</title><path class=\"ground\" d=\"M0 39.5H240\"/>");
        let mut heights = vec![0; length];
        for (class, values) in series {
            let mut strokes = String::new();
            for (at, (value, height)) in
                values.iter().zip(heights.iter_mut()).enumerate().filter(|(_, (value, _))| **value > 0)
            {
                let (low, high) = (*height, *height + value);
                *height = high;
                let y = |value: u64| 39.0 - 38.0 * value as f64 / most as f64;
                // What is there is seen, however little it is.
                let (from, to) = (y(low), y(high).min(y(low) - 1.0).max(0.0));
                strokes.push_str(&format!("M{} {from:.1}V{to:.1}", at * 4 + 2));
            }
            self.element("<path class=\"", class, "\" d=\"").unlimited(&strokes).raw("\"/>");
        }
        self.raw("</svg>\n")
    }

    /// The page so far.
    pub fn into_string(self) -> String {
        self.0
    }

    /// What was made of numbers here.
    fn unlimited(&mut self, strokes: &str) -> &mut Html {
        self.0.extend(strokes.chars().filter(|one| one.is_ascii_digit() || matches!(one, 'M' | 'V' | ' ' | '.')));
        self
    }
}

fn is_hidden(one: char) -> bool {
    one.is_control()
        || matches!(one, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

/// Characters of one text; names and complaints are shorter.
const LONGEST: usize = 320;

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut html = Html::default();
        html.text(text);
        html.into_string()
    }

    #[test]
    fn text_stays_text() {
        for (text, shown) in [
            ("fantasy-goal", "fantasy-goal"),
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload=\"x", "&quot; onload=&quot;x"),
            ("' onload='x", "&#39; onload=&#39;x"),
            ("&lt;", "&amp;lt;"),
            ("a\0\n\u{202e}b\u{feff}", "a\u{fffd}\u{fffd}\u{fffd}b\u{fffd}"),
            ("Ünïcode ✓", "Ünïcode ✓"),
        ] {
            assert_eq!(escaped(text), shown, "{text:?}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut() {
        let long = escaped(&"<".repeat(100_000));
        assert!(long.len() < LONGEST * 5 && long.ends_with("&lt;…"), "{}", long.len());
    }

    #[test]
    fn every_cell_of_a_table_has_heads() {
        let mut html = Html::default();
        let rows = vec![vec!["<a>".to_owned(), "1".to_owned()]];
        html.table(Table { caption: "By caller", columns: &["caller", "calls"], named: 1, rows, empty: "none" });
        let html = html.into_string();
        assert!(html.contains("<caption>By caller</caption>"), "{html}");
        assert!(html.contains("<th scope=\"col\">caller</th><th scope=\"col\" class=\"n\">calls</th>"), "{html}");
        assert!(html.contains("<tr><th scope=\"row\">&lt;a&gt;</th><td class=\"n\">1</td></tr>"), "{html}");
    }

    #[test]
    fn strokes_stand_on_each_other_and_stay_inside() {
        let mut html = Html::default();
        html.sparkline("calls", &[("good", vec![0, 3, 1]), ("bad", vec![0, 1, 0])]);
        let html = html.into_string();
        assert!(html.contains("<path class=\"good\" d=\"M6 39.0V10.5M10 39.0V29.5\"/>"), "{html}");
        assert!(html.contains("<path class=\"bad\" d=\"M6 10.5V1.0\"/>"), "{html}");
    }
}

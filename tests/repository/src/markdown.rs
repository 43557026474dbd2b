//! The tables of a Markdown file.

/// One row below a table's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's line in the file, from 1.
    pub line: usize,
    /// What stands between the bars, without blanks around it.
    pub cells: Vec<String>,
}

/// The rows of every table, in order.
///
/// # Errors
/// One sentence with the line where a table is not one for a reader of Markdown: a row without a head above it, a head
/// without a rule, or a row with more or fewer cells than its head.
pub fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut columns = None;
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((line, text)) = lines.next() {
        let Some(cells) = cells(text) else {
            columns = None;
            continue;
        };
        match columns {
            None => {
                let rule = lines.next().and_then(|(_, rule)| self::cells(rule));
                if !rule
                    .is_some_and(|rule| rule.len() == cells.len() && rule.iter().all(|cell| is_rule(cell)))
                {
                    return Err(format!("line {line}: a table's row with no head and rule above it"));
                }
                columns = Some(cells.len());
            }
            Some(columns) if columns == cells.len() => rows.push(Row { line, cells }),
            Some(columns) => {
                return Err(format!("line {line}: {} cells in a table of {columns} columns", cells.len()));
            }
        }
    }
    Ok(rows)
}

fn is_rule(cell: &str) -> bool {
    cell.len() >= 3 && cell.chars().all(|c| c == '-' || c == ':')
}

/// The cells of a line that is a table's. Bars inside code spans and behind a backslash separate nothing.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?;
    let mut cells = vec![String::new()];
    let (mut in_code, mut escaped) = (false, false);
    for c in inner.chars() {
        let last = cells.last_mut()?;
        match c {
            '|' if !escaped && !in_code => {
                cells.push(String::new());
                continue;
            }
            '|' if escaped => {
                last.pop();
            }
            '`' => in_code = !in_code,
            _ => {}
        }
        escaped = c == '\\';
        cells.last_mut()?.push(c);
    }
    // Behind the last bar there is nothing.
    if cells.last()?.trim().is_empty() {
        cells.pop();
    }
    Some(cells.iter().map(|cell| cell.trim().to_owned()).collect())
}

/// What stands between backquotes.
pub fn code_spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_with_their_line_and_their_cells() {
        let text = "# A\n\n| a | b |\n|---|:--|\n| 1 | `x|y` |\n| 2 | p \\| q |\n\ntext | text\n";
        let expected = [(5, ["1", "`x|y`"]), (6, ["2", "p | q"])];
        let expected = expected.map(|(line, cells)| Row { line, cells: cells.map(str::to_owned).into() });
        assert_eq!(rows(text), Ok(expected.to_vec()));
    }

    #[test]
    fn a_table_that_a_blank_line_cuts_is_an_error_at_its_second_half() {
        let text = "| a |\n|---|\n| 1 |\n\n| 2 |\n| 3 |\n";
        assert_eq!(rows(text), Err("line 5: a table's row with no head and rule above it".into()));
    }

    #[test]
    fn a_row_with_other_columns_than_its_head_is_an_error() {
        assert_eq!(rows("| a |\n|---|\n| 1 | 2 |\n"), Err("line 3: 2 cells in a table of 1 columns".into()));
    }
}

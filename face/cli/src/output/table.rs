//! Columns as Go's text/tabwriter aligns them for docker: at least ten wide, three spaces between.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns tab-separated lines. A cell belongs to a column when a tab ends it; a column's width is shared by the
/// consecutive lines that have it.
pub(crate) fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// [`align`] with another minimum and padding.
pub(crate) fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut line = 0;
        while line < lines.len() {
            if widths[line].len() <= column {
                line += 1;
                continue;
            }
            let end = (line..lines.len()).find(|&n| widths[n].len() <= column).unwrap_or(lines.len());
            let widest = (line..end).map(|n| lines[n][column].chars().count() + padding).max().unwrap_or(0);
            for row in &mut widths[line..end] {
                row[column] = widest.max(min_width);
            }
            line = end;
        }
    }
    let mut aligned = String::with_capacity(text.len() * 2);
    for (number, cells) in lines.iter().enumerate() {
        if number > 0 {
            aligned.push('\n');
        }
        for (index, cell) in cells.iter().enumerate() {
            aligned.push_str(cell);
            if let Some(width) = widths[number].get(index) {
                let pad = width.saturating_sub(cell.chars().count());
                aligned.extend(std::iter::repeat_n(' ', pad));
            }
        }
    }
    aligned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_dockers() {
        let text = "CONTAINER ID\tIMAGE\tNAMES\n0123456789ab\tbusybox\ta\n0123456789ac\tnginx:latest\tbb\n";
        assert_eq!(
            align(text),
            "CONTAINER ID   IMAGE          NAMES\n0123456789ab   busybox        a\n0123456789ac   nginx:latest   bb\n"
        );
        assert_eq!(align("A\tB\nü\tb\n"), "A         B\nü         b\n");
    }

    #[test]
    fn a_line_without_a_column_separates_blocks() {
        assert_eq!(align("a\tb\n\naaaaaaaaaaaa\tb\n"), "a         b\n\naaaaaaaaaaaa   b\n");
    }
}

//! A series of unknown length in a bounded number of bins: whenever they are full, neighbours are merged and
//! every bin stands for twice as much from then on.

/// What can be summed up with its neighbour.
pub trait Merge {
    /// Takes in what follows it.
    fn merge(&mut self, next: &Self);
}

/// Items in at most `most` bins of equal length.
#[derive(Debug)]
pub struct Series<T> {
    bins: Vec<T>,
    most: usize,
    /// Items per bin, a power of two.
    per_bin: u64,
    pending: Option<T>,
    in_pending: u64,
    items: u64,
}

impl<T: Merge + Clone> Series<T> {
    /// Between `most / 2` and `most` bins once there were that many items; `most` is made even.
    pub fn new(most: usize) -> Self {
        let most = most.max(2).next_multiple_of(2);
        Self { bins: Vec::new(), most, per_bin: 1, pending: None, in_pending: 0, items: 0 }
    }

    /// Takes in the next item.
    pub fn push(&mut self, item: T) {
        self.items += 1;
        self.in_pending += 1;
        let bin = match self.pending.take() {
            Some(mut bin) => {
                bin.merge(&item);
                bin
            }
            None => item,
        };
        if self.in_pending < self.per_bin {
            self.pending = Some(bin);
            return;
        }
        self.in_pending = 0;
        self.bins.push(bin);
        if self.bins.len() == self.most {
            let mut kept = 0;
            for pair in 0..self.most / 2 {
                let mut merged = self.bins[2 * pair].clone();
                merged.merge(&self.bins[2 * pair + 1]);
                self.bins[kept] = merged;
                kept += 1;
            }
            self.bins.truncate(kept);
            self.per_bin *= 2;
        }
    }

    /// Items taken in.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Items that one bin stands for (the last one possibly fewer).
    pub fn per_bin(&self) -> u64 {
        self.per_bin
    }

    /// Number of bins, the unfinished one included.
    pub fn len(&self) -> usize {
        self.bins.len() + usize::from(self.pending.is_some())
    }

    /// Bin `i`, the unfinished one last.
    pub fn bin(&self, i: usize) -> Option<&T> {
        if i == self.bins.len() { self.pending.as_ref() } else { self.bins.get(i) }
    }

    /// The series spread over `columns` columns that together stand for `total` items: what the bins that touch
    /// a column sum up to; `None` after the end of the series.
    pub fn columns(&self, columns: usize, total: f64) -> Vec<Option<T>> {
        let bins_per_column = total / self.per_bin as f64 / columns.max(1) as f64;
        (0..columns)
            .map(|column| {
                let first = (column as f64 * bins_per_column) as usize;
                // A hair less than the column's end, so that a bin that only begins there is not in it.
                let last = ((column + 1) as f64 * bins_per_column - 1e-9).max(first as f64) as usize;
                let mut merged = self.bin(first)?.clone();
                for next in (first + 1..=last).map_while(|i| self.bin(i)) {
                    merged.merge(next);
                }
                Some(merged)
            })
            .collect()
    }
}

/// Lowest and highest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extremes {
    pub low: f32,
    pub high: f32,
}

impl From<f32> for Extremes {
    fn from(value: f32) -> Self {
        Self { low: value, high: value }
    }
}

impl Merge for Extremes {
    fn merge(&mut self, next: &Self) {
        self.low = self.low.min(next.low);
        self.high = self.high.max(next.high);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ramp(items: u32, most: usize) -> Series<Extremes> {
        let mut series = Series::new(most);
        for i in 0..items {
            series.push((i as f32).into());
        }
        series
    }

    #[test]
    fn the_number_of_bins_is_bounded_and_nothing_is_lost() {
        for items in [1, 7, 8, 9, 100, 4095, 4096, 4097] {
            let series = ramp(items, 8);
            assert!(series.len() <= 8, "{items}");
            assert_eq!(series.items(), u64::from(items));
            let mut expected = 0;
            for i in 0..series.len() {
                let bin = series.bin(i).unwrap();
                assert_eq!(bin.low, expected as f32, "{items}");
                expected = bin.high as u32 + 1;
            }
            assert_eq!(expected, items);
        }
    }

    #[test]
    fn columns_cover_what_lies_in_them() {
        let series = ramp(1000, 1000);
        let columns = series.columns(10, 1000.0);
        for (i, column) in columns.iter().enumerate() {
            let (low, high) = (column.unwrap().low, column.unwrap().high);
            assert!(low <= i as f32 * 100.0 && high >= i as f32 * 100.0 + 98.0, "{i}: {low} {high}");
            assert!(low >= i as f32 * 100.0 - 2.0 && high <= i as f32 * 100.0 + 101.0, "{i}: {low} {high}");
        }
        // Fewer items than columns: each is as wide as several.
        let wide = ramp(2, 8).columns(6, 2.0);
        assert_eq!(wide.iter().map(|c| c.unwrap().low).collect::<Vec<_>>(), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        // The series ends before the last column does.
        assert_eq!(ramp(2, 8).columns(4, 4.0)[2], None);
    }
}

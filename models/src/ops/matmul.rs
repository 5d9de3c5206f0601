//! A bounds-checked door to the `gemm` crate for row-major matrices.

use gemm::Parallelism;

/// A row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// `rows` × `columns` values, row by row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix holds rows times columns values");
        Self { data, rows, columns, transposed: false }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// (rows, columns, column stride, row stride) as seen from outside.
    fn view(&self) -> (usize, usize, isize, isize) {
        let stride = self.columns as isize;
        if self.transposed {
            (self.columns, self.rows, stride, 1)
        } else {
            (self.rows, self.columns, 1, stride)
        }
    }
}

/// `out = a · b`, or `out += a · b`; `out` is row-major.
pub fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], accumulate: bool) {
    let (m, k, a_cs, a_rs) = a.view();
    let (k2, n, b_cs, b_rs) = b.view();
    assert_eq!(k, k2, "inner dimensions agree");
    assert_eq!(out.len(), m * n, "the product has its place");
    let old = if accumulate { 1.0 } else { 0.0 };
    // SAFETY: the three pointers come from live slices whose lengths were checked against the sizes and strides
    // given here (`Matrix::new` and the assertions above); `out` is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a_cs,
            a_rs,
            b.data.as_ptr(),
            b_cs,
            b_rs,
            old,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_transposes_agree_with_the_definition() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let b = [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]; // 3 x 2
        let mut out = [0.0; 4];
        multiply(Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, false);
        assert_eq!(out, [58.0, 64.0, 139.0, 154.0]);
        multiply(Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut out, true);
        assert_eq!(out, [116.0, 128.0, 278.0, 308.0]);
        let mut square = [0.0; 9];
        multiply(Matrix::new(&a, 2, 3).t(), Matrix::new(&b, 3, 2).t(), &mut square, false);
        assert_eq!(square, [39.0, 49.0, 59.0, 54.0, 68.0, 82.0, 69.0, 87.0, 105.0]);
    }
}

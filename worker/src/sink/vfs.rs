//! SQLite's own way to files, but for one thing: names are used as they are given. Its own asks for the attributes of
//! every directory on the way, and of the one that this process stands in, which may lie where its user may not look.

use std::{
    ffi::{CStr, c_char, c_int},
    ptr,
    sync::OnceLock,
};

use rusqlite::ffi;

/// What connections are opened with.
const NAME: &CStr = c"nursery";

/// Name of this way, for [`rusqlite::Connection::open_with_flags_and_vfs`].
///
/// # Errors
/// SQLite's, which cannot happen unless it is out of memory.
pub fn name() -> rusqlite::Result<&'static CStr> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match *REGISTERED.get_or_init(register) {
        ffi::SQLITE_OK => Ok(NAME),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

fn register() -> c_int {
    // SAFETY: SQLite is set up by the first call, and gives a table of functions that stays for ever. The copy lives as
    // long, and all its functions but one are called as they would be through the original: they find what is theirs in
    // the fields that are copied with them.
    unsafe {
        let code = ffi::sqlite3_initialize();
        if code != ffi::SQLITE_OK {
            return code;
        }
        let usual = ffi::sqlite3_vfs_find(ptr::null());
        if usual.is_null() {
            return ffi::SQLITE_ERROR;
        }
        let own = ffi::sqlite3_vfs {
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            xFullPathname: Some(as_given),
            ..*usual
        };
        ffi::sqlite3_vfs_register(Box::leak(Box::new(own)), 0)
    }
}

unsafe extern "C" fn as_given(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite hands over a name that ends with a zero, and room for `size` bytes elsewhere.
    unsafe {
        let length = CStr::from_ptr(name).count_bytes() + 1;
        if usize::try_from(size).is_ok_and(|size| length <= size) {
            ptr::copy_nonoverlapping(name, out, length);
            ffi::SQLITE_OK
        } else {
            ffi::SQLITE_CANTOPEN
        }
    }
}

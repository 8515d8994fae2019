//! Host names in a static binary.

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// `<nss.h>`: overrides what `/etc/nsswitch.conf` says of one database.
    fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
}

/// Makes host name lookups use `/etc/hosts` and DNS only, whatever `/etc/nsswitch.conf` says.
///
/// Both are built into glibc since 2.34, in `libc.a` too; any other service (`mdns4`, `resolve`, `myhostname`)
/// would be loaded as a shared object, which a static binary cannot do safely: the object brings the host's
/// own glibc with it. To be called before the first lookup; more calls do nothing. musl knows nothing else.
pub fn use_builtin_services() {
    #[cfg(target_env = "gnu")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: both arguments are static NUL-terminated strings, which glibc parses and copies; the call
            // is made once, and callers make it before any lookup, so no other thread reads the table meanwhile.
            let result = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
            // It fails only for an unknown database or out of memory; then nsswitch.conf is still in force.
            debug_assert_eq!(result, 0, "\"hosts\" is a database of glibc");
        });
    }
}

//! Which Debian packages have the shared libraries that wheels of Python need and do not bring.

/// Libraries by the beginning of their names.
const LIBRARIES: [(&str, &str); 66] = [
    ("libEGL.so", "libegl1"),
    ("libGL.so", "libgl1"),
    ("libGLU.so", "libglu1-mesa"),
    ("libGLX.so", "libglx0"),
    ("libGLdispatch.so", "libglvnd0"),
    ("libGLESv2.so", "libgles2"),
    ("libICE.so", "libice6"),
    ("libOpenGL.so", "libopengl0"),
    ("libSM.so", "libsm6"),
    ("libX11-xcb.so", "libx11-xcb1"),
    ("libX11.so", "libx11-6"),
    ("libXau.so", "libxau6"),
    ("libXcomposite.so", "libxcomposite1"),
    ("libXcursor.so", "libxcursor1"),
    ("libXdamage.so", "libxdamage1"),
    ("libXext.so", "libxext6"),
    ("libXfixes.so", "libxfixes3"),
    ("libXft.so", "libxft2"),
    ("libXi.so", "libxi6"),
    ("libXinerama.so", "libxinerama1"),
    ("libXmu.so", "libxmu6"),
    ("libXrandr.so", "libxrandr2"),
    ("libXrender.so", "libxrender1"),
    ("libXss.so", "libxss1"),
    ("libXt.so", "libxt6"),
    ("libXtst.so", "libxtst6"),
    ("libasound.so", "libasound2"),
    ("libatk-1.0.so", "libatk1.0-0"),
    ("libatomic.so", "libatomic1"),
    ("libbz2.so", "libbz2-1.0"),
    ("libcairo.so", "libcairo2"),
    ("libcups.so", "libcups2"),
    ("libcurl.so", "libcurl4"),
    ("libdbus-1.so", "libdbus-1-3"),
    ("libexpat.so", "libexpat1"),
    ("libfontconfig.so", "libfontconfig1"),
    ("libfreetype.so", "libfreetype6"),
    ("libgbm.so", "libgbm1"),
    ("libgcc_s.so", "libgcc-s1"),
    ("libgdk_pixbuf-2.0.so", "libgdk-pixbuf-2.0-0"),
    ("libgfortran.so", "libgfortran5"),
    ("libgio-2.0.so", "libglib2.0-0"),
    ("libglib-2.0.so", "libglib2.0-0"),
    ("libgobject-2.0.so", "libglib2.0-0"),
    ("libgomp.so", "libgomp1"),
    ("libgthread-2.0.so", "libglib2.0-0"),
    ("liblzma.so", "liblzma5"),
    ("libmagic.so", "libmagic1"),
    ("libnspr4.so", "libnspr4"),
    ("libnss3.so", "libnss3"),
    ("libodbc.so", "libodbc2"),
    ("libpango-1.0.so", "libpango-1.0-0"),
    ("libpangocairo-1.0.so", "libpangocairo-1.0-0"),
    ("libportaudio.so", "libportaudio2"),
    ("libpq.so", "libpq5"),
    ("libpulse.so", "libpulse0"),
    ("libsndfile.so", "libsndfile1"),
    ("libsqlite3.so", "libsqlite3-0"),
    ("libstdc++.so", "libstdc++6"),
    ("libusb-1.0.so", "libusb-1.0-0"),
    ("libuuid.so", "libuuid1"),
    ("libxcb.so", "libxcb1"),
    ("libxkbcommon.so", "libxkbcommon0"),
    ("libxml2.so", "libxml2"),
    ("libxslt.so", "libxslt1.1"),
    ("libz.so", "zlib1g"),
];

/// The Debian package that has a shared library, by the name that programs know it by, such as `libGL.so.1`; `None` where
/// that is not known.
#[must_use]
pub fn package_of(library: &str) -> Option<&'static str> {
    LIBRARIES.iter().find(|(begin, _)| library.starts_with(begin)).map(|(_, package)| *package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_their_names() {
        for (library, package) in [
            ("libGL.so.1", Some("libgl1")),
            ("libxcb.so.1", Some("libxcb1")),
            ("libgthread-2.0.so.0", Some("libglib2.0-0")),
            ("libacme.so.7", None),
        ] {
            assert_eq!(package_of(library), package, "{library}");
        }
    }
}

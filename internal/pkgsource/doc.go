// Package pkgsource brings model packages from elsewhere to this machine.
//
// A package may be an archive (tar, tar.gz, zip) or a lone ONNX file behind http:// or
// https://, or the objects under a prefix of an S3 or OBS bucket. Fetch puts the files into a
// directory of its own below Config.Dir; the caller imports it into the package store and
// then calls Discard. A fetch that was cut off leaves parts that say what they are parts
// of: the next Fetch with the same key goes on where they end, as long as the source did
// not change. Nothing here is ever mistaken for a finished package.
//
// Whatever comes from outside is distrusted: addresses are checked when they are dialled,
// archives are unpacked below one directory with limits on sizes, counts and names, and
// links and devices are refused. Errors that the source is to blame for are faults; neither
// they nor their causes hold queries of URLs or keys.
package pkgsource

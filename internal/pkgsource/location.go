package pkgsource

import (
	"net/url"
	"path"
	"regexp"
	"strings"
)

const maxLocation = 4096

// location is a parsed source_location.
type location struct {
	url    string // http and https; without fragment
	sha256 string // what the file must hash to; "" means whatever
	bucket string // s3 and obs
	prefix string // without slashes at its ends
	single bool   // an ONNX file by itself
	shown  string // for errors and logs: without a query
}

var (
	hashForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	bucketForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
)

// Remote reports whether a location has a scheme that this package fetches.
func Remote(loc string) bool {
	scheme, _, ok := strings.Cut(loc, "://")
	if !ok {
		return false
	}

	switch strings.ToLower(scheme) {
	case "http", "https", "s3", "obs":
		return true
	default:
		return false
	}
}

func parse(text string) (location, error) {
	if len(text) > maxLocation {
		return location{}, refuse(nil, "is longer than %d bytes", maxLocation)
	}

	u, err := url.Parse(text)
	if err != nil {
		return location{}, refuse(nil, "is not a URL") // the error holds the text, which may hold secrets
	}

	loc := location{single: strings.EqualFold(path.Ext(u.Path), ".onnx"), shown: u.Scheme + "://" + u.Host + u.EscapedPath()}

	switch {
	case u.User != nil:
		return location{}, refuse(nil, "must not hold a user name or a password")
	case u.Hostname() == "":
		return location{}, refuse(nil, "names no host or bucket")
	}

	switch strings.ToLower(u.Scheme) {
	case "http", "https":
		return httpLocation(loc, u)
	case "s3", "obs":
		return bucketLocation(loc, u)
	default:
		return location{}, refuse(nil, "must begin with http://, https://, s3:// or obs://")
	}
}

func httpLocation(loc location, u *url.URL) (location, error) {
	if u.Fragment != "" {
		hash, ok := strings.CutPrefix(strings.ToLower(u.Fragment), "sha256=")
		if !ok || !hashForm.MatchString(hash) {
			return location{}, refuse(nil, "may end with #sha256= and 64 hexadecimal digits, and with no other fragment")
		}

		loc.sha256 = hash
	}

	plain := *u
	plain.Fragment, plain.RawFragment = "", ""
	loc.url = plain.String()

	return loc, nil
}

func bucketLocation(loc location, u *url.URL) (location, error) {
	switch {
	case u.RawQuery != "" || u.Fragment != "":
		return location{}, refuse(nil, "must be a bucket and a prefix, without query and fragment")
	case !bucketForm.MatchString(u.Host) || strings.Contains(u.Host, ".."):
		return location{}, refuse(nil, "names %q, which cannot be a bucket", u.Host)
	}

	loc.bucket, loc.prefix = u.Host, strings.Trim(u.Path, "/")

	return loc, nil
}

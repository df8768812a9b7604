package auth

import (
	"crypto/sha256"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// verifyAppCode looks a code up by its hash, so that neither the table nor the time that the
// comparison takes tells anything about it.
func (v *Verifier) verifyAppCode(d *Directory, r *Request, code []byte) (*Principal, error) {
	if !r.TLS && !v.cfg.PlainAppCodes {
		return nil, errTLSRequired
	}

	a := d.apps.byCode[sha256.Sum256(code)]
	if a == nil || !a.spec.Enabled {
		return nil, errUnknownCode
	}

	return &a.byCode, nil
}

func (v *Verifier) verifyAppKey(d *Directory, r *Request, key []byte) (*Principal, error) {
	if !r.TLS && !v.cfg.PlainAppCodes {
		return nil, errTLSRequired
	}

	a := d.apps.byKey[string(key)]
	if a == nil || !a.spec.Enabled {
		return nil, errUnknownKey
	}

	return &a.byKey, nil
}

var (
	errTLSRequired = fault.New(fault.TLSRequired, "")
	errUnknownCode = fault.New(fault.AppUnknown, "Incorrect app authentication information: app not found, the app code is unknown")
	errUnknownKey  = fault.New(fault.AppUnknown, "Incorrect app authentication information: app not found, the app key is unknown")
)

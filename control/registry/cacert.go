package registry

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"

	"github.com/sluice-gateway/sluice/spec"
)

// maxCABytes bounds a file of certificates: it travels to every gateway.
const maxCABytes = 64 << 10

// readCAs takes the certificates that the package names into its configuration, because gateways do
// not have the package.
func readCAs(root *os.Root, c *spec.PackageConfig) error {
	if c.TLSCACert != "" {
		text, err := readCA(root, "tls_ca_cert", c.TLSCACert)
		if err != nil {
			return err
		}

		c.CAPEM = text
	}

	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		if e.CACert == "" {
			continue
		}

		text, err := readCA(root, fmt.Sprintf("endpoints[%d].ca_cert", i), e.CACert)
		if err != nil {
			return err
		}

		e.CAPEM = text
	}

	return nil
}

func readCA(root *os.Root, field, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", invalid(err, field, "names the file %s, which cannot be read", name)
	}
	defer f.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(f, maxCABytes+1))
	if err != nil {
		return "", invalid(err, field, "names the file %s, which cannot be read", name)
	}

	if len(data) > maxCABytes {
		return "", invalid(nil, field, "names the file %s, which is larger than %d bytes", name, maxCABytes)
	}

	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return "", invalid(nil, field, "names the file %s, which holds no certificate", name)
	}

	return string(data), nil
}

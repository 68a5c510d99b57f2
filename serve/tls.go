package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carousel-ml/carousel/model"
)

// Certificates are a server's certificate and key, and the authorities whose clients it
// takes, from files in PEM.
type Certificates struct {
	certificate, key, clients string // paths
	log                       *slog.Logger
	now                       atomic.Pointer[tls.Config]

	reading sync.Mutex
	seal    *seal // of the files as they were read
}

// OpenCertificates reads a certificate with those that lead to its authority, and its key.
// clients, if not empty, is a file of authorities: then only clients whose certificate is
// of one of these can connect, and its common name is the client's unless it
// sends a token. log, which may be nil, records when the files are read again. Errors are
// [*model.FileError]s.
func OpenCertificates(certificate, key, clients string, log *slog.Logger) (*Certificates, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certificates{certificate: certificate, key: key, clients: clients, log: log}
	return c, c.read()
}

// mostPEM is the number of bytes of a file.
const mostPEM = 1 << 20

func readPEM(path, what string) ([]byte, error) {
	f, err := os.Open(path)
	var b []byte
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, mostPEM+1))
	}
	if err == nil && len(b) > mostPEM {
		err = fmt.Errorf("it has more than %d bytes", mostPEM)
	}
	if err != nil {
		return nil, &model.FileError{File: path, Problem: fmt.Sprintf("expected %s in PEM: %v", what, withoutPath(err)), Err: err}
	}
	return b, nil
}

// read takes the files in place of what was read before, all or none.
func (c *Certificates) read() error {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.seal = c.files() // also of what is refused
	public, err := readPEM(c.certificate, "a certificate")
	if err != nil {
		return err
	}
	private, err := readPEM(c.key, "a key")
	if err != nil {
		return err
	}
	defer clear(private)
	pair, err := tls.X509KeyPair(public, private)
	if err != nil {
		return &model.FileError{File: c.certificate, Problem: fmt.Sprintf("expected a certificate in PEM that fits the key in %s: %v", c.key, err), Err: err}
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if c.clients != "" {
		text, err := readPEM(c.clients, "certificates of authorities")
		if err != nil {
			return err
		}
		config.SessionTicketsDisabled = true // a client whose authority is no longer taken must not come back with one
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return &model.FileError{File: c.clients, Problem: "expected certificates of authorities in PEM, found none"}
		}
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		c.log.Warn("the certificate is not valid now; clients will refuse it", "file", c.certificate,
			"from", pair.Leaf.NotBefore.UTC().Format(time.RFC3339), "until", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c.now.Store(config)
	return nil
}

func (c *Certificates) files() *seal { return filesSeal(c.certificate, c.key, c.clients) }

// Config returns the configuration of a listener, whose connections use the files as they were
// last read.
func (c *Certificates) Config() *tls.Config {
	config := c.now.Load().Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return c.now.Load(), nil
	}
	return config
}

// Watch reads the files again when they have changed and then been still from one look to
// the next, until ctx ends. Connections that are open keep theirs. Files that do not fit
// each other are an error in the log, and those before them remain in use.
func (c *Certificates) Watch(ctx context.Context, every time.Duration) {
	c.reading.Lock()
	was := c.seal
	c.reading.Unlock()
	follow(ctx, every, was, c.files, c.Reload)
}

// Reload reads the files again at once, as [Certificates.Watch] does when they have changed.
func (c *Certificates) Reload() {
	if err := c.read(); err != nil {
		c.log.Error("the certificates are not taken, those before stay", "reason", err.Error())
		return
	}
	c.log.Info("the certificates were read again", "file", c.certificate,
		"until", c.now.Load().Certificates[0].Leaf.NotAfter.UTC().Format(time.RFC3339))
}

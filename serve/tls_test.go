package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// authority makes certificates for tests.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(tb testing.TB) *authority {
	a := &authority{tb: tb}
	a.key, a.cert, _, _ = a.make("authority", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) make(name string, c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, []byte, []byte) {
	a.tb.Helper()
	a.last++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(a.last), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	by, signer := a.cert, a.key
	if by == nil {
		by, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, signer)
	if err != nil {
		a.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// pool has the authority alone.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) server() (cert, key []byte) {
	_, _, cert, key = a.make("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return cert, key
}

func (a *authority) client(name string) tls.Certificate {
	_, _, cert, key := a.make(name, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return pair
}

func put(tb testing.TB, path string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}

func waitFor(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal(what)
		}
	}
}

func TestCertificatesAreReloaded(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key := a.server()
	put(t, certFile, cert)
	put(t, keyFile, key)
	var certs *Certificates
	d := run(t, func(s *Server) {
		var err error
		if certs, err = OpenCertificates(certFile, keyFile, "", s.log); err != nil {
			t.Fatal(err)
		}
		s.o.TLS = certs
	})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go certs.Watch(ctx, 10*time.Millisecond)
	serial := func() int64 {
		t.Helper()
		for _, addr := range []string{d.http, d.grpc} {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool(), NextProtos: []string{"h2"}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.ConnectionState().NegotiatedProtocol != "h2" {
				t.Errorf("%s did not take HTTP/2", addr)
			}
			if addr == d.grpc {
				return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
			}
		}
		return 0
	}
	first := serial()
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if c, err := tls.Dial("tcp", d.http, &tls.Config{RootCAs: a.pool(), MinVersion: tls.VersionTLS10, MaxVersion: version}); err == nil {
			c.Close()
			t.Errorf("%s was taken", tls.VersionName(version))
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool()}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	out, err := client.Get("https://" + d.http + "/v2/health/ready")
	if err != nil || out.StatusCode != 200 || out.ProtoMajor != 2 {
		t.Fatal(err, out)
	}
	out.Body.Close()
	if out, err := http.Get("http://" + d.http + "/v2/health/ready"); err == nil && out.StatusCode == 200 {
		t.Error("a request without TLS was answered")
	}

	other, otherKey := a.server()
	put(t, certFile, other) // which the key does not fit
	waitFor(t, "the log does not tell of a pair that does not fit", func() bool { return strings.Contains(d.log.String(), "the certificates are not taken") })
	if serial() != first {
		t.Error("a pair that does not fit was taken")
	}
	put(t, keyFile, otherKey)
	waitFor(t, "a new pair was not taken", func() bool { return serial() != first })
}

func TestCertificatesThatDoNotFit(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	cert, key := a.server()
	other, _ := a.server()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		put(t, path, b)
		return path
	}
	c, k := file("c", cert), file("k", key)
	for _, one := range []struct{ cert, key, clients, problem string }{
		{c, k, "", ""},
		{filepath.Join(dir, "none"), k, "", "none: expected a certificate in PEM"},
		{c, filepath.Join(dir, "none"), "", "none: expected a key in PEM"},
		{file("other", other), k, "", "expected a certificate in PEM that fits the key in " + k},
		{c, c, "", "expected a certificate in PEM that fits the key"},
		{c, file("big", make([]byte, 1<<20+1)), "", "it has more than 1048576 bytes"},
		{c, k, k, "found none"},
	} {
		_, err := OpenCertificates(one.cert, one.key, one.clients, nil)
		if one.problem == "" && err != nil || one.problem != "" && (err == nil || !strings.Contains(err.Error(), one.problem)) {
			t.Errorf("got %v, want %q", err, one.problem)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("the error holds a key: %v", err)
		}
	}
}

// The common name of a certificate is the client's, at both doors, and with a file of
// tokens it must stand there.
func TestClientsByCertificate(t *testing.T) {
	a, stranger, dir := newAuthority(t), newAuthority(t), t.TempDir()
	cert, key := a.server()
	certFile, keyFile, clients := filepath.Join(dir, "c"), filepath.Join(dir, "k"), filepath.Join(dir, "ca")
	put(t, certFile, cert)
	put(t, keyFile, key)
	put(t, clients, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	for _, withFile := range []bool{false, true} {
		t.Run(fmt.Sprint(withFile), func(t *testing.T) {
			d := run(t, func(s *Server) {
				var err error
				if s.o.TLS, err = OpenCertificates(certFile, keyFile, clients, s.log); err != nil {
					t.Fatal(err)
				}
				if withFile {
					path := filepath.Join(t.TempDir(), "tokens")
					put(t, path, []byte("alice infer certificate\n"))
					if s.o.Access, err = OpenAccess(path, s.log); err != nil {
						t.Fatal(err)
					}
				}
			})
			ask := func(pair tls.Certificate, path, body string) (int, error) {
				transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{pair}}}
				defer transport.CloseIdleConnections()
				out, err := (&http.Client{Transport: transport}).Post("https://"+d.http+path, "application/json", strings.NewReader(body))
				if err != nil {
					return 0, err
				}
				defer out.Body.Close()
				_, _ = io.Copy(io.Discard, out.Body)
				return out.StatusCode, nil
			}
			alice, bob := a.client("alice"), a.client("bob")
			begin := strings.Replace(oneStep, "{", `{"parameters":{"sequence_id":"s","sequence_start":true},`, 1)
			if got, err := ask(alice, "/v2/models/m/infer", begin); got != 200 {
				t.Fatal(got, err)
			}
			if got, err := ask(bob, "/v2/models/m/infer", begin); got != 403 {
				t.Errorf("the sequence of another: %d %v", got, err)
			}
			want := map[bool]int{false: 200, true: 403}[withFile]
			if got, err := ask(bob, "/v2/models/m/infer", oneStep); got != want {
				t.Errorf("bob: %d %v, want %d", got, err, want)
			}
			if got, err := ask(alice, "/v2/repository/index", ""); got != want {
				t.Errorf("alice's index: %d %v, want %d", got, err, want)
			}
			if got, err := ask(stranger.client("alice"), "/v2/models/m/infer", oneStep); err == nil {
				t.Errorf("a certificate of another authority was answered: %d", got)
			}
			if got, err := ask(tls.Certificate{}, "/v2/models/m/infer", oneStep); err == nil {
				t.Errorf("a client without a certificate was answered: %d", got)
			}
			call := func(pair tls.Certificate) error {
				conn, err := grpc.NewClient(d.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{pair}})))
				if err != nil {
					return err
				}
				defer conn.Close()
				ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
				defer stop()
				_, err = pb.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, stepProto("s", false))
				return err
			}
			if err := call(alice); err != nil {
				t.Errorf("alice's sequence by gRPC: %v", err)
			}
			if err := call(bob); status.Code(err) != codes.PermissionDenied {
				t.Errorf("alice's sequence by bob: %v", err)
			}
			if err := call(stranger.client("alice")); status.Code(err) != codes.Unavailable {
				t.Errorf("a certificate of another authority: %v", err)
			}
		})
	}
}

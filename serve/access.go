package serve

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// Access is the clients that may use a server, and their scopes: the tokens of a file, which
// clients send as "Authorization: Bearer ..." and never in a URL, since URLs are logged. The
// file has one line per token:
//
//	NAME SCOPES SHA256 [EXPIRY]
//
// NAME is whom sessions and limits count for: 1 to 64 letters, digits, points, hyphens and
// underscores; several tokens may share one, for example while one replaces another.
// SCOPES are infer (models and sessions), admin (loading, unloading and listing models,
// profiles) and metrics, divided by commas. SHA256 is that of the token's characters in
// hexadecimal, so the file does not hold the token; or the word certificate: then
// NAME is the common name of a client's certificate, and clients with it need no token.
// EXPIRY is the last day, such as 2027-01-31, in UTC, or a time such as
// 2027-01-31T12:00:00Z. Empty lines and those that begin with # mean nothing.
// [NewToken] makes a token and its line. Methods are safe for concurrent use.
type Access struct {
	path   string
	log    *slog.Logger
	tokens atomic.Pointer[[]*token]

	reading sync.Mutex
	seal    *seal // of the file as it was read

	mu   sync.Mutex
	held map[*holding]struct{}
}

// token is a line of the file.
type token struct {
	name        string
	scopes      scope
	certificate bool // of that name; otherwise
	hash        [sha256.Size]byte
	until       time.Time // zero: it does not expire
}

// scope is a set of what a token is for.
type scope uint8

const (
	inferScope scope = 1 << iota
	adminScope
	metricsScope
	openScope scope = 0 // for everyone
)

var scopeNames = []string{"infer", "admin", "metrics"}

func (s scope) String() string {
	var names []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// readScopes reads names of scopes, divided by commas.
func readScopes(text string) (s scope, err error) {
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(scopeNames, name)
		if i < 0 || s&(1<<i) != 0 {
			return 0, fmt.Errorf("scopes: expected infer, admin and metrics divided by commas, each at most once, got %.60q", text)
		}
		s |= 1 << i
	}
	return s, nil
}

// readExpiry returns the time from which a token is no longer taken.
func readExpiry(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("expiry: expected a day such as 2027-01-31 or a time such as 2027-01-31T12:00:00Z, got %.60q", text)
	}
	return at, nil
}

func checkClient(name string) error {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
	}) {
		return fmt.Errorf("name: expected 1 to 64 letters, digits, points, hyphens and underscores, got %.60q", name)
	}
	return nil
}

// NewToken returns a random token and its line for the file of [Access]. scopes is as in
// the file; expiry may be empty. The token cannot be
// recovered from the line. The error says which argument is wrong.
func NewToken(name, scopes, expiry string) (secret, line string, err error) {
	if err := checkClient(name); err != nil {
		return "", "", err
	}
	if _, err := readScopes(scopes); err != nil {
		return "", "", err
	}
	if expiry != "" {
		end, err := readExpiry(expiry)
		if err == nil && !time.Now().Before(end) {
			err = fmt.Errorf("expiry: expected a day or time to come, got %s, which is over", expiry)
		}
		if err != nil {
			return "", "", err
		}
	}
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", err
	}
	secret = "carousel_" + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	return secret, strings.TrimSpace(strings.Join([]string{name, scopes, hex.EncodeToString(sum[:]), expiry}, " ")), nil
}

// Limits on the file of tokens, all of which are compared with that of each request.
const (
	mostTokens     = 1000
	mostTokenBytes = 1 << 20
)

// OpenAccess reads a file of tokens. Errors are
// [*model.FileError]s with its line. log, which may be nil, records when it is read again.
func OpenAccess(path string, log *slog.Logger) (*Access, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Access{path: path, log: log, held: map[*holding]struct{}{}}
	return a, a.read()
}

// read takes the file's tokens in place of those before. Streams of tokens that are gone,
// or have lost the scope, end.
func (a *Access) read() error {
	a.reading.Lock()
	defer a.reading.Unlock()
	a.seal = filesSeal(a.path) // also of what is refused
	tokens, err := readTokens(a.path)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens.Store(&tokens)
	for h := range a.held {
		i := slices.IndexFunc(tokens, h.t.same)
		if i < 0 || tokens[i].scopes&inferScope == 0 {
			h.end(revoked)
		} else {
			h.until(tokens[i].until)
		}
	}
	return nil
}

// same reports whether two lines are of one token of one client.
func (t *token) same(other *token) bool { return t.name == other.name && t.clashes(other) }

// clashes reports whether whoever has one has the other.
func (t *token) clashes(other *token) bool {
	return t.certificate == other.certificate && t.hash == other.hash && (!t.certificate || t.name == other.name)
}

func readTokens(path string) (list []*token, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, &model.FileError{File: path, Problem: "the file of tokens cannot be read: " + withoutPath(err).Error(), Err: err}
	case !info.Mode().IsRegular() || info.Size() > mostTokenBytes:
		return nil, &model.FileError{File: path, Problem: fmt.Sprintf("expected a file of tokens, of at most %d bytes", mostTokenBytes)}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &model.FileError{File: path, Problem: "the file of tokens cannot be read: " + withoutPath(err).Error(), Err: err}
	}
	lines, err := data.LinesOf(path, b, "utf-8")
	if err != nil {
		return nil, err
	}
	defer lines.Close()
	for {
		text, err := lines.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		t, err := readToken(text)
		if err == nil && slices.ContainsFunc(list, t.clashes) {
			err = fmt.Errorf("the token of %q is there twice; leave one, which has one name", t.name)
		}
		if err != nil {
			return nil, &model.FileError{File: fmt.Sprintf("%s:%d", path, lines.Line), Problem: err.Error()}
		}
		list = append(list, t)
	}
	if len(list) == 0 || len(list) > mostTokens {
		return nil, &model.FileError{File: path, Problem: fmt.Sprintf("expected 1 to %d lines NAME SCOPES SHA256 [EXPIRY], got %d", mostTokens, len(list)), Fix: "make one with carousel serve --new-token NAME=SCOPES"}
	}
	return list, nil
}

// withoutPath returns why a file cannot be used, for a message that has its path already.
func withoutPath(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

func readToken(line string) (*token, error) {
	fields := strings.Fields(line)
	if len(fields) < 3 || len(fields) > 4 {
		return nil, fmt.Errorf("expected NAME SCOPES SHA256 [EXPIRY], got %d words", len(fields)) // and not what they are: one may be a secret
	}
	t := &token{name: fields[0]}
	err := checkClient(t.name)
	if err != nil {
		return nil, err
	}
	if t.scopes, err = readScopes(fields[1]); err != nil {
		return nil, err
	}
	if t.certificate = fields[2] == "certificate"; !t.certificate {
		sum, err := hex.DecodeString(fields[2])
		if err != nil || len(sum) != len(t.hash) {
			return nil, fmt.Errorf("the token of %q: expected its SHA-256 as %d hexadecimal digits, or certificate; never write the token itself here", t.name, 2*len(t.hash))
		}
		copy(t.hash[:], sum)
	}
	if len(fields) == 4 {
		if t.until, err = readExpiry(fields[3]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Watch reads the file again when it has changed and then been still from one look to the
// next, until ctx ends. A faulty file is an error in the log, and the tokens before it remain valid.
func (a *Access) Watch(ctx context.Context, every time.Duration) {
	a.reading.Lock()
	was := a.seal
	a.reading.Unlock()
	follow(ctx, every, was, func() *seal { return filesSeal(a.path) }, a.Reload)
}

// Reload reads the file again at once, as [Access.Watch] does when it has changed.
func (a *Access) Reload() {
	if err := a.read(); err != nil {
		a.log.Error("the file of tokens is not taken, those before stay", "reason", err.Error())
		return
	}
	a.log.Info("the file of tokens was read again", "file", a.path, "tokens", len(*a.tokens.Load()))
}

// find returns the token of a secret; nil if there is none. Its time does not depend on
// which it is, or on how much of one is right.
func (a *Access) find(secret string) (found *token) {
	b := []byte(secret)
	sum := sha256.Sum256(b)
	clear(b)
	for _, t := range *a.tokens.Load() {
		if subtle.ConstantTimeCompare(t.hash[:], sum[:]) == 1 && !t.certificate {
			found = t
		}
	}
	return found
}

// certified returns the line of a certificate's name.
func (a *Access) certified(name string) *token {
	for _, t := range *a.tokens.Load() {
		if t.certificate && t.name == name {
			return t
		}
	}
	return nil
}

const mostSecret = 512 // bytes of a token

// challenge is the value of WWW-Authenticate for a request without a token, as in RFC 6750.
const challenge = `Bearer realm="carousel"`

var (
	errNoToken  = inference.Errorf(inference.Unknown, "this server needs a token: send the header Authorization: Bearer and the token, nowhere else")
	errBadToken = inference.Errorf(inference.Unknown, "the token is not known to this server, or has expired")
)

// identify returns whose request it is: the client of a token, or the name of a
// certificate. authorization are the values of that header, certificate the name of the
// client's certificate, which was verified; "" if it has none. client is "" for a server that anyone
// may use, and for what is open.
func (s *Server) identify(authorization []string, certificate string, needs scope) (client string, t *token, err error) {
	a := s.o.Access
	switch {
	case a == nil:
		return certificate, nil, nil
	case needs == openScope:
		return "", nil, nil
	case len(authorization) == 0 && certificate == "":
		return "", nil, errNoToken
	case len(authorization) == 0:
		if t = a.certified(certificate); t == nil {
			return "", nil, inference.Errorf(inference.Denied, "the certificate of %.60q is not in the server's file of tokens", certificate)
		}
	case len(authorization) > 1:
		return "", nil, inference.Errorf(inference.Unknown, "the header Authorization is there %d times, expected once", len(authorization))
	default:
		kind, secret, _ := strings.Cut(authorization[0], " ")
		if secret = strings.TrimSpace(secret); !strings.EqualFold(kind, "Bearer") || secret == "" || len(secret) > mostSecret {
			return "", nil, errNoToken
		}
		if t = a.find(secret); t == nil {
			return "", nil, errBadToken
		}
	}
	if !t.until.IsZero() && !time.Now().Before(t.until) {
		return "", nil, errBadToken
	}
	if t.scopes&needs == 0 {
		return t.name, nil, inference.Errorf(inference.Denied, "this needs the scope %v, and the token of %q has %v; use another token", needs, t.name, t.scopes)
	}
	return t.name, t, nil
}

// certificateOf returns the common name of a client's verified certificate.
func certificateOf(c *tls.ConnectionState) string {
	if c == nil || len(c.VerifiedChains) == 0 || len(c.VerifiedChains[0]) == 0 {
		return ""
	}
	return c.VerifiedChains[0][0].Subject.CommonName
}

// scopeOfPath returns the scope that a path needs. The path is without percent signs, so that
// whatever pattern it is matched with, it begins with these.
func scopeOfPath(path string) scope {
	below := func(top string) bool { return path == top || strings.HasPrefix(path, top+"/") }
	switch {
	case path == "/v2/health/live" || path == "/v2/health/ready":
		return openScope
	case path == "/metrics":
		return metricsScope
	case below("/v2/repository"), below("/v2/logging"), below("/v2/trace"), below("/debug"):
		return adminScope
	}
	return inferScope
}

// admitted returns the request with the name of its client, or why it is refused.
func (s *Server) admitted(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	client, t, err := s.identify(r.Header["Authorization"], certificateOf(r.TLS), scopeOfPath(r.URL.Path))
	r.Header.Del("Authorization")                                          // nothing behind this needs it, and what has it not cannot log it
	if c, ok := r.Context().Value(connKey{}).(*conn); ok && client != "" { // the log names it also if it is refused
		r = r.WithContext(context.WithValue(r.Context(), connKey{}, c.of(client, t)))
	}
	if err != nil {
		switch known := inference.AsError(err); {
		case known.Code == inference.Denied && t == nil && client != "":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s, error="insufficient_scope", scope=%q`, challenge, scopeOfPath(r.URL.Path)))
		case err == errBadToken:
			w.Header().Set("WWW-Authenticate", challenge+`, error="invalid_token"`)
		default:
			w.Header().Set("WWW-Authenticate", challenge)
		}
	}
	return r, err
}

// of returns a connection whose client is known by a name.
func (c *conn) of(client string, t *token) *conn {
	return &conn{client: client, name: c.name, proven: true, token: t}
}

// scopeOfCall returns the scope that a method of gRPC needs.
func scopeOfCall(method string) scope {
	switch method {
	case pb.GRPCInferenceService_ServerLive_FullMethodName, pb.GRPCInferenceService_ServerReady_FullMethodName, "/grpc.health.v1.Health/Check":
		return openScope
	case pb.GRPCInferenceService_RepositoryIndex_FullMethodName, pb.GRPCInferenceService_RepositoryModelLoad_FullMethodName,
		pb.GRPCInferenceService_RepositoryModelUnload_FullMethodName, pb.GRPCInferenceService_TraceSetting_FullMethodName,
		pb.GRPCInferenceService_LogSettings_FullMethodName:
		return adminScope
	}
	return inferScope
}

// admitCall is gRPC's tap: it admits a call when its header has come, so that nothing of the
// message of one that is refused is read. It is called with a lock of the connection held, so
// refusals are not held back as those of HTTP are.
func (s *Server) admitCall(ctx context.Context, i *tap.Info) (context.Context, error) {
	err := s.wrongHost(first(i.Header[":authority"]))
	if err == nil {
		ctx, err = s.admittedCall(ctx, i)
	}
	if err == nil {
		return ctx, nil
	}
	err = inference.AsError(err).GRPC().Err()
	ctx, q := s.beginCall(ctx, i.FullMethodName)
	s.endCall(ctx, q, i.FullMethodName, err)
	return ctx, err
}

// admittedCall returns a call's context with the name of its client, also if it is refused.
func (s *Server) admittedCall(ctx context.Context, i *tap.Info) (context.Context, error) {
	if s.o.Access == nil && s.o.TLS == nil {
		return ctx, nil
	}
	certificate := ""
	c := &conn{}
	if p, ok := peer.FromContext(ctx); ok {
		c.name = p.Addr.String()
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			certificate = certificateOf(&t.State)
		}
	}
	client, t, err := s.identify(i.Header["authorization"], certificate, scopeOfCall(i.FullMethodName))
	if client != "" {
		ctx = context.WithValue(ctx, connKey{}, c.of(client, t))
	}
	return ctx, err
}

// wrongHost returns why a request is not for this server by the host that it names. A page of
// another site can give its own name the address of a machine that only its reader reaches, such
// as the reader's own, and the browser then takes the server for a part of that site. So names
// must be known. An address cannot be given away like that.
func (s *Server) wrongHost(host string) error {
	if host == "" || s.o.Hosts == nil && !s.guarded.Load() {
		return nil
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost") ||
		slices.ContainsFunc(s.o.Hosts, func(known string) bool { return known == AnyHost || strings.EqualFold(known, name) }) {
		return nil
	}
	return inference.Errorf(inference.Denied, "this server does not answer at the name %.100q, which a page of another site may have given its address; use the address, or list the name under hosts in the server's configuration (--hosts)", name)
}

// AnyHost in [Options]' Hosts lets requests name any host.
const AnyHost = "*"

// CheckHost returns an error for a text that cannot be one of [Options]' Hosts.
func CheckHost(name string) error {
	if name != AnyHost && (name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
	})) {
		return fmt.Errorf("expected the name of a host without a port, such as models.example.org, or %s for any, got %.60q", AnyHost, name)
	}
	return nil
}

// Reasons for which a stream of requests ends.
const (
	expired batch.Reason = "the token of the stream has expired"
	revoked batch.Reason = "the token of the stream was taken from the server's file"
)

// holding is a stream that lasts as long as its token.
type holding struct {
	t     *token
	ended func(batch.Reason) // returns at once, and may be called more than once
	timer *time.Timer
}

func (h *holding) end(why batch.Reason) { h.ended(why) }

// until sets the time of the end.
func (h *holding) until(at time.Time) {
	if h.timer != nil {
		h.timer.Stop()
	}
	if !at.IsZero() {
		h.timer = time.AfterFunc(time.Until(at), func() { h.end(expired) })
	}
}

// holdToken calls ended when the token of a stream's caller is no longer valid, until release
// is called. ended must return at once.
func (s *Server) holdToken(c Caller, ended func(batch.Reason)) (release func()) {
	a := s.o.Access
	if a == nil || c.token == nil {
		return func() {}
	}
	h := &holding{t: c.token, ended: ended}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[h] = struct{}{}
	if i := slices.IndexFunc(*a.tokens.Load(), h.t.same); i < 0 { // since the request was admitted
		h.end(revoked)
	} else {
		h.until((*a.tokens.Load())[i].until)
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.held, h)
		if h.timer != nil {
			h.timer.Stop()
		}
	}
}

// profileRoutes adds the profiles of the process. They show its code and its use, so they need
// the scope admin and are off unless asked for.
func (s *Server) profileRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

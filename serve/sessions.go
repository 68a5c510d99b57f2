package serve

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// sessionRoutes adds /v1/sessions, where sessions are opened, used, listed, ended, saved and
// restored by their ids, and /v1/stream. The sessions are those of the protocol's parameter
// sequence_id.
func (s *Server) sessionRoutes(mux *http.ServeMux) {
	const one = "/v1/sessions/{session}"
	mux.HandleFunc("POST /v1/sessions", s.created(s.openSessionHTTP))
	mux.HandleFunc("GET /v1/sessions", s.answer(s.listSessionsHTTP))
	mux.HandleFunc("GET "+one, s.answer(s.describeSessionHTTP))
	mux.HandleFunc("DELETE "+one, s.endSessionHTTP)
	mux.HandleFunc("POST "+one+"/infer", s.inferSessionHTTP)
	mux.HandleFunc("GET "+one+"/state", s.saveSessionHTTP)
	mux.HandleFunc("PUT "+one+"/state", s.created(s.restoreSessionHTTP))
	s.streamRoutes(mux, streamLimits{})
}

// Limits on what clients ask for.
const (
	longestLife = 31 * 24 * time.Hour
	usualListed = 100
	mostListed  = 1000
)

// keeper is what keeps state for the clients of a model: the model, or the stages of a
// pipeline that do.
type keeper struct {
	e      *entry
	stages []keptStage
}

// keptStage is a version, and the name under which its sessions are in the table.
type keptStage struct {
	name string
	v    *version
}

// keeper returns what keeps state in a model. Errors are those of find, and
// inference.Unsupported if nothing does.
func (s *Server) keeper(model, number string) (*keeper, error) {
	e, v, err := s.find(model, number)
	if err != nil {
		return nil, err
	}
	k := &keeper{e: e}
	if e.pipeline == nil {
		k.stages = []keptStage{{e.name, v}}
	} else {
		for i, stage := range e.pipeline.c.Stages {
			if _, v, err = s.find(stage.Model, ""); err != nil {
				return nil, err
			}
			k.stages = append(k.stages, keptStage{e.pipeline.session(i), v})
		}
	}
	k.stages = slices.DeleteFunc(k.stages, func(one keptStage) bool { return one.v.program().NewState() == nil })
	if len(k.stages) == 0 {
		return nil, inference.Errorf(inference.Unsupported, "model %q keeps no state: send requests to /v2/models/%s/infer", model, url.PathEscape(model))
	}
	return k, nil
}

// held is a session as clients see it: of a model one of the table, of a pipeline one for
// each stage that keeps a state.
type held struct {
	id    string
	e     *entry
	parts []*batch.Session
}

// hold opens a session of a model.
func (s *Server) hold(model, number string, o batch.Opening, owner *Owner) (h *held, err error) {
	err = again(func() error {
		k, err := s.keeper(model, number)
		if err == nil {
			h, err = s.holdIn(k, o, owner)
		}
		return err
	})
	return h, err
}

func (s *Server) holdIn(k *keeper, o batch.Opening, owner *Owner) (*held, error) {
	h := &held{e: k.e}
	for _, stage := range k.stages {
		o := o
		o.ID = cmp.Or(h.id, o.ID) // a random one is the same in all stages
		o.Life = cmp.Or(o.Life, stage.v.c.Life)
		n, err := s.openSession(stage.v, stage.name, o, owner)
		if err != nil {
			h.end(batch.Ended)
			return nil, err
		}
		h.id, h.parts = n.ID(), append(h.parts, n)
	}
	return h, nil
}

func (h *held) end(why batch.Reason) {
	for _, n := range h.parts {
		n.End(why)
	}
}

// single returns the session of a model.
func (h *held) single() (*batch.Session, error) {
	if h.e.pipeline != nil {
		return nil, inference.Errorf(inference.Unsupported, "the session of a pipeline, such as %q, cannot be saved or restored; use sessions of its models", h.e.name)
	}
	return h.parts[0], nil
}

// allowed reports whether a caller may use a session. The id is the key: one that the server
// chose cannot be guessed. Callers whose name is proven have only those that they opened.
func allowed(c Caller, n *batch.Session) bool { return !c.Proven || n.Client() == c.Client }

// sessionNames returns the names under which sessions of a model are in the table.
func (e *entry) sessionNames() []string {
	if e.pipeline == nil {
		return []string{e.name}
	}
	var names []string
	for i := range e.pipeline.c.Stages {
		names = append(names, e.pipeline.session(i))
	}
	return names
}

// entriesOf returns a model by its name, or all if it is empty.
func (s *Server) entriesOf(model string) ([]*entry, error) {
	if model == "" {
		return s.models.list(), nil
	}
	e := s.models.get(model)
	if e == nil {
		return nil, inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", model, s.names())
	}
	return []*entry{e}, nil
}

// held finds a session that a caller may use. model may be empty if no other model has a
// session of the id.
func (s *Server) held(model, id string, c Caller) (*held, error) {
	entries, err := s.entriesOf(model)
	if err != nil {
		return nil, err
	}
	var found *held
	var over error
	for _, e := range entries {
		h := &held{id: id, e: e}
		for _, name := range e.sessionNames() {
			n, err := s.sessions.Find(name, id)
			switch {
			case err == nil && allowed(c, n):
				h.parts = append(h.parts, n)
			case err != nil && s.sessions.Why(name, id) != "":
				over = err
			}
		}
		if h.parts == nil {
			continue
		}
		if found != nil {
			return nil, inference.Errorf(inference.Invalid, "models %q and %q have a session %q each: say which with ?model=", found.e.name, e.name, id)
		}
		found = h
	}
	switch {
	case found != nil:
		return found, nil
	case over != nil:
		return nil, over
	}
	return nil, inference.Errorf(inference.NotFound, "there is no session %q; open one with POST /v1/sessions", id)
}

// sessionInfo is what clients are told of a session.
type sessionInfo struct {
	ID      string       `json:"id"`
	Model   string       `json:"model"`
	Version string       `json:"version"`
	Life    float64      `json:"ttl_seconds"`
	Idle    float64      `json:"idle_seconds"` // since its last request
	Bytes   int          `json:"bytes"`        // of its state
	Steps   uint64       `json:"steps"`        // requests that succeeded since it began
	Inputs  []tensorInfo `json:"inputs,omitempty"`
	Outputs []tensorInfo `json:"outputs,omitempty"`
}

// tensorInfo is an input or output as in the protocol's metadata.
type tensorInfo struct {
	Name     string             `json:"name"`
	Datatype inference.Datatype `json:"datatype"`
	Shape    []int              `json:"shape"`
}

// tensorInfos leaves out states, which the session keeps.
func tensorInfos(list []inference.Info) []tensorInfo {
	var out []tensorInfo
	for _, t := range list {
		if !t.State {
			out = append(out, tensorInfo{t.Name, t.Datatype, t.Dims})
		}
	}
	return out
}

// info returns what clients are told of a session; tensors says whether also of its inputs
// and outputs.
func (s *Server) info(h *held, tensors bool) (*sessionInfo, error) {
	first := h.parts[0]
	v := first.Queue().Owner.(*version)
	i := &sessionInfo{ID: h.id, Model: h.e.name, Version: v.number, Life: first.Life().Seconds()}
	ins, outs := v.ins, v.outs
	if h.e.pipeline != nil {
		i.Version = "1"
		var err error
		if ins, outs, err = h.e.pipeline.infos(s); err != nil {
			return nil, err
		}
	}
	var last time.Time
	for _, n := range h.parts {
		used, steps, bytes := n.Used()
		i.Bytes += bytes
		i.Steps = max(i.Steps, steps)
		if used.After(last) {
			last = used
		}
	}
	i.Idle = float64(time.Since(last).Milliseconds()) / 1000
	if tensors {
		i.Inputs, i.Outputs = tensorInfos(ins), tensorInfos(outs)
	}
	return i, nil
}

// created returns a handler that answers with the session that f begins.
func (s *Server) created(f func(*http.Request) (*held, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h, err := f(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		i, err := s.info(h, true)
		if err != nil {
			h.end(batch.Ended)
			s.fail(w, r, err)
			return
		}
		text, _ := json.Marshal(i) // all its parts have a form
		w.Header().Set("Location", "/v1/sessions/"+url.PathEscape(h.id)+"?model="+url.QueryEscape(h.e.name))
		s.write(w, r, http.StatusCreated, "", append(text, '\n'))
	}
}

// life checks a time to live in seconds.
func life(seconds float64) (time.Duration, error) {
	if !(seconds > 0 && seconds <= longestLife.Seconds()) {
		return 0, inference.Errorf(inference.Invalid, "ttl_seconds: expected more than 0 and at most %.0f, got %v", longestLife.Seconds(), seconds)
	}
	return max(time.Millisecond, time.Duration(seconds*float64(time.Second))), nil
}

// lifeIn reads the parameter ttl_seconds of a URL; 0 if it is not given.
func lifeIn(q url.Values) (time.Duration, error) {
	text := q.Get("ttl_seconds")
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, inference.Errorf(inference.Invalid, "ttl_seconds: expected a number of seconds, got %q", text)
	}
	return life(seconds)
}

func (s *Server) openSessionHTTP(r *http.Request) (*held, error) {
	var q struct {
		Model   string   `json:"model"`
		Version string   `json:"version"`
		ID      string   `json:"id"`
		Life    *float64 `json:"ttl_seconds"`
	}
	if err := s.read(r, &q); err != nil {
		return nil, err
	}
	if q.Model == "" {
		return nil, inference.Errorf(inference.Invalid, `the request has no "model", expected the name of one: the server has %s`, s.names())
	}
	o := batch.Opening{ID: q.ID, Client: s.caller(r).Client}
	if q.Life != nil {
		var err error
		if o.Life, err = life(*q.Life); err != nil {
			return nil, err
		}
	}
	return s.hold(q.Model, q.Version, o, nil)
}

// sessionOf finds the session that a request names.
func (s *Server) sessionOf(r *http.Request) (*held, error) {
	return s.held(r.URL.Query().Get("model"), r.PathValue("session"), s.caller(r))
}

func (s *Server) describeSessionHTTP(r *http.Request) (any, error) {
	h, err := s.sessionOf(r)
	if err != nil {
		return nil, err
	}
	return s.info(h, true)
}

func (s *Server) endSessionHTTP(w http.ResponseWriter, r *http.Request) {
	h, err := s.sessionOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h.end(batch.Ended)
	w.WriteHeader(http.StatusNoContent)
}

// listSessionsHTTP lists the sessions that the caller opened.
func (s *Server) listSessionsHTTP(r *http.Request) (any, error) {
	q, most := r.URL.Query(), usualListed
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostListed {
			return nil, inference.Errorf(inference.Invalid, "limit: expected 1 to %d, got %q", mostListed, text)
		}
		most = n
	}
	names := []string{""} // all
	if q.Get("model") != "" {
		entries, err := s.entriesOf(q.Get("model"))
		if err != nil {
			return nil, err
		}
		names = entries[0].sessionNames()
	}
	var list struct {
		Sessions []*sessionInfo `json:"sessions"`
		More     bool           `json:"more"` // than the limit
	}
	list.Sessions = []*sessionInfo{}
	type key struct{ model, id string }
	at := map[key]*held{} // the parts of a pipeline's are one
	for _, name := range names {
		parts, more := s.sessions.Of(s.caller(r).Client, name, most)
		list.More = list.More || more
		for _, n := range parts {
			model, _, _ := strings.Cut(n.Model(), "/")
			e := s.models.get(model)
			if e == nil {
				continue // it was forgotten just now
			}
			k := key{model, n.ID()}
			if at[k] == nil {
				at[k] = &held{id: n.ID(), e: e}
			}
			at[k].parts = append(at[k].parts, n)
		}
	}
	for _, h := range at {
		i, err := s.info(h, false)
		if err != nil {
			continue // of a pipeline whose models are not loaded any more
		}
		list.Sessions = append(list.Sessions, i)
	}
	slices.SortFunc(list.Sessions, func(a, b *sessionInfo) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.ID, b.ID))
	})
	if len(list.Sessions) > most {
		list.Sessions, list.More = list.Sessions[:most], true
	}
	return list, nil
}

// adopt makes a request one of the session.
func (h *held) adopt(q *inference.Request) error {
	switch id := q.Params["sequence_id"]; id {
	case nil, h.id:
	default:
		return inference.Errorf(inference.Invalid, "parameter sequence_id is %v, but the request goes to session %q; leave it out", id, h.id)
	}
	if q.Params == nil {
		q.Params = inference.Params{}
	}
	q.Model, q.Params["sequence_id"] = h.e.name, h.id
	return nil
}

func (s *Server) inferSessionHTTP(w http.ResponseWriter, r *http.Request) {
	var q *inference.Request
	h, err := s.sessionOf(r)
	if err == nil {
		err = s.withBody(r, func(b []byte) (err error) {
			q, err = inference.ReadRequest(r.Header.Get(inference.HeaderLength), b)
			return err
		})
	}
	if err == nil {
		err = h.adopt(q)
	}
	if text := r.URL.Query().Get("end"); text != "" && err == nil {
		end, problem := strconv.ParseBool(text)
		if problem != nil {
			err = inference.Errorf(inference.Invalid, "end: expected true or false, got %q", text)
		}
		q.Params["sequence_end"] = end
	}
	var out *inference.Response
	var header string
	var body []byte
	if err == nil {
		out, err = s.Infer(r.Context(), q, s.caller(r))
	}
	if err == nil {
		header, body, err = inference.WriteResponse(out, q)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, r, http.StatusOK, header, body)
}

func (s *Server) saveSessionHTTP(w http.ResponseWriter, r *http.Request) {
	var n *batch.Session
	var b []byte
	h, err := s.sessionOf(r)
	if err == nil {
		n, err = h.single()
	}
	if err == nil {
		b, err = n.Save(r.Context())
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // to a client that may have gone
}

// restoreSessionHTTP opens a session, of the id in the path, with a state that was saved.
func (s *Server) restoreSessionHTTP(r *http.Request) (*held, error) {
	q := r.URL.Query()
	o := batch.Opening{ID: r.PathValue("session"), Client: s.caller(r).Client}
	var err error
	if o.Life, err = lifeIn(q); err != nil {
		return nil, err
	}
	var saved *batch.Saved
	err = s.withBody(r, func(b []byte) (err error) {
		saved, err = batch.ReadSaved(slices.Clone(b)) // which keeps them
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.draining.Load() {
		return nil, errDraining
	}
	var h *held
	err = again(func() (err error) {
		h, err = s.restore(q, saved, o)
		return err
	})
	return h, err
}

// restore opens a session with a state that was saved. q has the model, if it is not that
// of the state, and the version, if it is not to be the one that saved it.
func (s *Server) restore(q url.Values, saved *batch.Saved, o batch.Opening) (*held, error) {
	k, err := s.keeper(cmp.Or(q.Get("model"), saved.Model), q.Get("version"))
	if err != nil {
		return nil, err
	}
	h := &held{id: o.ID, e: k.e, parts: make([]*batch.Session, 1)}
	if _, err = h.single(); err != nil {
		return nil, err
	}
	v := k.stages[0].v
	if q.Get("version") == "" { // the one that it was saved by, if that is served
		for _, other := range k.e.versions {
			if other.program().Fingerprint() == saved.Fingerprint {
				v = other
			}
		}
	}
	if o.Life == 0 {
		o.Life = min(saved.Life, longestLife)
	}
	h.parts[0], err = s.sessions.Restore(v.q, k.e.name, saved, o)
	return h, err
}

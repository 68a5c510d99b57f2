package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/train"
)

// kubeflow tells Kubeflow Trainer (2.2 and later, with its feature TrainJobStatus) how far a
// training is, so that "kubectl get trainjob" shows it. It asks for this by variables of the
// environment. Nothing that goes wrong with it harms the training.
type kubeflow struct {
	url, ca, token string        // the last two are files; the token is replaced while the training runs
	every, wait    time.Duration // between posts, and for one of them
	remark         func(string)
	now            func() time.Time

	plan  train.Plan
	limit time.Duration // of the run's time; 0: none
	begun time.Time
	from  int // the step at which the run began

	mu    sync.Mutex
	state trainerStatus // to be posted
	fresh bool          // it has not been posted
	done  chan struct{} // closed at the end; nil before the start
	sent  chan struct{} // closed when the last state was posted
	noted bool
}

// trainerStatus is what is posted, as {"trainerStatus": ...}.
type trainerStatus struct {
	Progress    *int            `json:"progressPercentage,omitempty"` // 0 to 100
	Remaining   *int            `json:"estimatedRemainingSeconds,omitempty"`
	Metrics     []trainerMetric `json:"metrics,omitempty"`
	LastUpdated string          `json:"lastUpdatedTime"` // RFC 3339
}

type trainerMetric struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// newKubeflow returns nil if the environment does not ask for progress.
func newKubeflow(getenv func(string) string, remark func(string)) *kubeflow {
	url := getenv("KUBEFLOW_TRAINER_SERVER_URL")
	if url == "" {
		return nil
	}
	return &kubeflow{
		url: url, ca: getenv("KUBEFLOW_TRAINER_SERVER_CA_CERT"), token: getenv("KUBEFLOW_TRAINER_SERVER_TOKEN"),
		every: 5 * time.Second, wait: 3 * time.Second, remark: remark, now: time.Now, // Kubeflow wants no more posts
	}
}

// watch adds the hooks to those of a run, whose time is limited to limit if that is not 0.
// end posts the last state.
func (k *kubeflow) watch(h *train.Hooks, limit time.Duration) (end func()) {
	if k == nil {
		return func() {}
	}
	k.limit = limit
	h.OnStart, h.OnStep = k.start, k.step
	h.AfterEpoch(k.epoch)
	return k.end
}

// start is called at the start of each network's training; a task may have several.
func (k *kubeflow) start(p train.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.plan, k.begun, k.from = p, k.now(), 0
	if n := len(p.History); n > 0 {
		k.from = p.History[n-1].Step
	}
	if k.done == nil {
		k.done, k.sent = make(chan struct{}), make(chan struct{})
		go k.post()
	}
	return nil
}

func (k *kubeflow) step(s train.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	took := k.now().Sub(k.begun)
	done, left := -1.0, -1.0 // a share, and seconds
	if n := k.plan.Steps; n > 0 && s.Step > k.from {
		done, left = float64(s.Step)/float64(n), took.Seconds()*float64(n-s.Step)/float64(s.Step-k.from)
	}
	if k.limit > 0 {
		rest := max(k.limit-took, 0).Seconds()
		if done = max(done, min(took.Seconds()/k.limit.Seconds(), 1)); left < 0 || rest < left {
			left = rest
		}
	}
	if done >= 0 {
		percent, seconds := int(100*min(done, 1)), int(left)
		k.state.Progress, k.state.Remaining = &percent, &seconds
	}
	k.metric("loss", s.Loss)
	k.touch()
	return nil
}

func (k *kubeflow) epoch(r train.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.Val)) {
		k.metric("val_"+name, r.Val[name])
	}
	k.metric("epoch", float64(r.Epoch))
	k.touch()
	return nil
}

func (k *kubeflow) metric(name string, value float64) {
	text := strconv.FormatFloat(value, 'g', 6, 64)
	if i := slices.IndexFunc(k.state.Metrics, func(m trainerMetric) bool { return m.Name == name }); i >= 0 {
		k.state.Metrics[i].Value = text
		return
	}
	k.state.Metrics = append(k.state.Metrics, trainerMetric{name, text})
}

func (k *kubeflow) touch() {
	k.state.LastUpdated, k.fresh = k.now().UTC().Format(time.RFC3339), true
}

// finish says that all is done.
func (k *kubeflow) finish() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	percent, none := 100, 0
	k.state.Progress, k.state.Remaining = &percent, &none
	k.touch()
}

// end posts what has not been posted, and returns when that is done, or after a short time.
func (k *kubeflow) end() {
	if k.done == nil {
		return
	}
	close(k.done)
	select {
	case <-k.sent:
	case <-time.After(2 * k.wait): // one post may be under way
	}
}

// post posts the state whenever there is a new one, until the end.
func (k *kubeflow) post() {
	defer close(k.sent)
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-k.done:
			last = true
		}
		k.mu.Lock()
		body, err := json.Marshal(map[string]*trainerStatus{"trainerStatus": &k.state})
		fresh := k.fresh
		k.fresh = false
		k.mu.Unlock()
		if !fresh {
			continue
		}
		if err == nil {
			err = k.send(body)
		}
		if err != nil && !k.noted {
			k.noted = true
			k.remark("Kubeflow is not told the progress: " + oneLine(err.Error()) + "; the training goes on")
		}
	}
}

// send posts once. Certificate and token are read each time, because they are replaced.
func (k *kubeflow) send(body []byte) error {
	ctx, stop := context.WithTimeout(context.Background(), k.wait)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if k.token != "" {
		token, err := os.ReadFile(k.token)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	way := &http.Transport{TLSClientConfig: &tls.Config{}, DisableKeepAlives: true}
	if k.ca != "" {
		text, err := os.ReadFile(k.ca)
		if err != nil {
			return err
		}
		way.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !way.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s holds no certificate in PEM", k.ca)
		}
	}
	client := &http.Client{Transport: way, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the token is for this address
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 1<<16)
	if answer.StatusCode/100 != 2 {
		return errors.New("the server answers " + answer.Status)
	}
	return nil
}

package serve

import (
	"context"
	"encoding/json"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// TestClients runs tritonclient and kserve's client, as PyPI has them, against the server.
// They need a Python with both packages (make clients).
func TestClients(t *testing.T) {
	python := os.Getenv("CAROUSEL_CLIENTS_PYTHON")
	if python == "" {
		t.Skip("needs CAROUSEL_CLIENTS_PYTHON, a Python with tritonclient[http,grpc] and kserve; make clients installs one")
	}
	s := newTestServer(t, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := s.GRPC()
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	facts := map[string]any{"http": strings.TrimPrefix(listen(t, s), "http://"), "grpc": l.Addr().String()}

	const rows, length = 3, 5
	x := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{rows, length, testHidden}}}
	for i := range rows * length * testHidden {
		x.Floats = append(x.Floats, float32(math.Sin(float64(i))))
	}
	facts["plain_shape"], facts["plain_x"] = x.Dims, x.Floats
	facts["plain_y"] = output(t, expected(t, s, "plain", nil, x), "y").Floats
	_, v, err := s.find("plain", "")
	if err != nil {
		t.Fatal(err)
	}
	facts["plain_labels"] = v.outs[v.outAt["y"]].Labels
	var steps, answers [][]float32
	for i := range 6 {
		x := stepInput(float32(i) / 3)
		p := inference.Params{"sequence_id": "facts", "sequence_start": i == 0, "sequence_end": i == 5}
		steps, answers = append(steps, x.Floats), append(answers, output(t, expected(t, s, "step", p, x), "y").Floats)
	}
	facts["steps_x"], facts["steps_y"] = steps, answers
	texts := []string{"a good one", "bad, very bad", "größer – 数"}
	r := expected(t, s, "words", nil, inference.Tensor{Name: "text", Datatype: inference.BYTES, Value: inference.Value{Dims: []int{len(texts)}, Texts: texts}})
	facts["texts"], facts["labels"], facts["probabilities"] = texts, output(t, r, "label").Texts, output(t, r, "probabilities").Doubles

	file := filepath.Join(t.TempDir(), "facts.json")
	b, err := json.Marshal(facts)
	if err == nil {
		err = os.WriteFile(file, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	for _, clients := range []string{"triton", "kserve"} {
		text, err := exec.CommandContext(ctx, python, filepath.Join("testdata", "clients.py"), clients, file).CombinedOutput()
		t.Logf("%s", text)
		if err != nil {
			t.Error(clients, err)
		}
	}
}

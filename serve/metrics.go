package serve

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/tensor"
)

// meter is what is measured of a version beside the statistics of its queue.
type meter struct {
	stepSeconds, stepRows, queueSeconds, answerMillis prometheus.Histogram

	ended [len(endings)]atomic.Uint64 // sessions, by the places of endings
}

// endings are the reasons for which a session ends without its client's wish, and their
// words in metrics.
var endings = [...]struct {
	why  batch.Reason
	word string
}{
	{batch.Idle, "idle"}, {batch.Evicted, "room"}, {batch.Gone, "disconnected"},
	{batch.Grown, "grown"}, {batch.Failed, "failed"}, {batch.Unloaded, "unloaded"}, {batch.Unstored, "unstored"}, {batch.Stopped, "stopped"},
}

// secondsBuckets are from 10 microseconds, which a step of a small network takes, to 10
// seconds.
var secondsBuckets = []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func newMeter(name, number string) *meter {
	labels := prometheus.Labels{"model": name, "version": number}
	histogram := func(metric, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: metric, Help: help, Buckets: buckets, ConstLabels: labels})
	}
	return &meter{
		stepSeconds:  histogram("carousel_step_seconds", "Time of a batch, from its start to its end.", secondsBuckets),
		stepRows:     histogram("carousel_step_rows", "Rows of a batch.", prometheus.ExponentialBuckets(1, 2, 11)),
		queueSeconds: histogram("carousel_queue_seconds", "Time of a request from its arrival to its batch.", secondsBuckets),
		// Triton's buckets are 100, 500, 2000 and 5000.
		answerMillis: histogram("nv_inference_first_response_histogram_ms", "Time of a successful request from its arrival to its answer, in milliseconds.",
			[]float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 5000}),
	}
}

// batch notes a batch.
func (m *meter) batch(rows int, took time.Duration) {
	m.stepRows.Observe(float64(rows))
	m.stepSeconds.Observe(took.Seconds())
}

// job notes a job that succeeded.
func (m *meter) job(j *batch.Job) {
	m.queueSeconds.Observe(j.Started.Sub(j.Queued).Seconds())
	m.answerMillis.Observe(float64(j.Finished.Sub(j.Queued)) / float64(time.Millisecond))
}

// over notes the end of a session.
func (m *meter) over(why batch.Reason) {
	for i := range endings {
		if endings[i].why == why {
			m.ended[i].Add(1)
		}
	}
}

// do runs a job on the version's queue and measures it.
func (v *version) do(ctx context.Context, j *batch.Job) error {
	err := v.q.Do(ctx, j)
	if err == nil {
		v.meter.job(j)
	}
	return err
}

// metric is a number of a version that is read when it is asked for.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*reading) float64
	label string // the value of the label reason, if the metric has it
}

// reading is the state of a version at one time.
type reading struct {
	v               *version
	stats           batch.Stats
	sessions, bytes int
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

var metrics = versionMetrics()

func versionMetrics() (list []metric) {
	labels := []string{"model", "version"}
	add := func(kind prometheus.ValueType, name, help string, value func(*reading) float64) {
		list = append(list, metric{prometheus.NewDesc(name, help, labels, nil), kind, value, ""})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	// Triton's names, so that dashboards made for it show this server.
	add(counter, "nv_inference_request_success", "Successful requests.", func(r *reading) float64 { return float64(r.stats.Succeeded) })
	failure := prometheus.NewDesc("nv_inference_request_failure", "Failed requests, by reason: REJECTED because too many waited, CANCELED by the client or its deadline before they ran, OTHER.", append(labels, "reason"), nil)
	for reason, value := range map[string]func(*reading) float64{
		"REJECTED": func(r *reading) float64 { return float64(r.stats.Refused) },
		"CANCELED": func(r *reading) float64 { return float64(r.stats.Canceled) },
		"OTHER":    func(r *reading) float64 { return float64(r.stats.Failed) },
	} {
		list = append(list, metric{failure, counter, value, reason})
	}
	add(counter, "nv_inference_count", "Rows computed; divided by nv_inference_exec_count the mean batch.", func(r *reading) float64 { return float64(r.stats.Rows) })
	add(counter, "nv_inference_exec_count", "Batches computed.", func(r *reading) float64 { return float64(r.stats.Batches) })
	add(gauge, "nv_inference_pending_request_count", "Requests that wait for their batch.", func(r *reading) float64 { return float64(r.stats.Waiting) })
	add(counter, "nv_inference_request_duration_us", "Time of successful requests, in microseconds: the sum of the four below.", func(r *reading) float64 {
		return micros(time.Duration(r.v.decoded.Load()) + r.stats.Queued + r.stats.Computed + time.Duration(r.v.encoded.Load()))
	})
	add(counter, "nv_inference_queue_duration_us", "Time that successful requests waited for their batch, in microseconds.", func(r *reading) float64 { return micros(r.stats.Queued) })
	add(counter, "nv_inference_compute_input_duration_us", "Time of reading the inputs of requests, in microseconds.", func(r *reading) float64 { return micros(time.Duration(r.v.decoded.Load())) })
	add(counter, "nv_inference_compute_infer_duration_us", "Time of the batches of successful requests, in microseconds; a batch counts once for each of its requests.", func(r *reading) float64 { return micros(r.stats.Computed) })
	add(counter, "nv_inference_compute_output_duration_us", "Time of making the outputs of requests, in microseconds.", func(r *reading) float64 { return micros(time.Duration(r.v.encoded.Load())) })

	add(gauge, "carousel_sessions", "Sessions whose state is kept.", func(r *reading) float64 { return float64(r.sessions) })
	add(gauge, "carousel_session_bytes", "Memory of the states of sessions, in bytes.", func(r *reading) float64 { return float64(r.bytes) })
	evicted := prometheus.NewDesc("carousel_sessions_evicted_total", "Sessions that ended without their client's wish, by reason: idle for longer than their time to live, room for others, disconnected, grown beyond the memory there is, failed with their model, unloaded with it, unstored because the store of sessions could not be written, stopped with the server.", append(labels, "reason"), nil)
	for i := range endings {
		list = append(list, metric{evicted, counter, func(r *reading) float64 { return float64(r.v.meter.ended[i].Load()) }, endings[i].word})
	}
	return list
}

// The metrics of models, whatever versions of them are served.
var (
	currentDesc = prometheus.NewDesc("carousel_model_current", "1 if all of the model that is to be served is served, else 0; the index of the repository says why.", []string{"model"}, nil)
	reloadsDesc = prometheus.NewDesc("carousel_reloads_total", "Loads of the model, with the first one, by result: loaded, failed.", []string{"model", "result"}, nil)
)

// The metrics of the server, whatever its models are.
var (
	deviceDesc      = prometheus.NewDesc("carousel_device", "1 if what models of tasks compute on can be used, 0 if it failed and the server must be started again.", []string{"device"}, nil)
	configDesc      = prometheus.NewDesc("carousel_config_current", "1 if the server runs as its configuration file says, else 0; the log says why. Absent without such a file.", nil, nil)
	connectionsDesc = prometheus.NewDesc("carousel_connections", "Connections that are open, of HTTP and gRPC.", nil, nil)
	refusedDesc     = prometheus.NewDesc("carousel_connections_refused_total", "Connections that were refused, by whose limit: server, client.", []string{"reason"}, nil)
)

// collector reads the versions that are served when metrics are asked for. Labels are the
// names and versions of models alone, so there are as many series as models.
type collector struct{ s *Server }

// Describe describes nothing: which series there are depends on the models.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of the server and of all versions.
func (c collector) Collect(to chan<- prometheus.Metric) {
	if c.s.config.on.Load() {
		current := 0.0
		if c.s.config.current.Load() {
			current = 1
		}
		to <- prometheus.MustNewConstMetric(configDesc, prometheus.GaugeValue, current)
	}
	on, works := c.s.o.Device, 1.0
	if on == nil {
		on = tensor.CPU()
	}
	if on.Lost() != nil {
		works = 0
	}
	to <- prometheus.MustNewConstMetric(deviceDesc, prometheus.GaugeValue, works, on.Name())
	to <- prometheus.MustNewConstMetric(connectionsDesc, prometheus.GaugeValue, float64(c.s.connected.count()))
	for i, word := range fullness {
		to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(c.s.connected.refused[i].Load()), word)
	}
	for _, e := range c.s.models.list() {
		if e.pipeline == nil && e.wanted {
			current := 0.0
			if len(e.versions) > 0 && e.reason == "" {
				current = 1
			}
			l := c.s.models.of(e.name)
			to <- prometheus.MustNewConstMetric(currentDesc, prometheus.GaugeValue, current, e.name)
			to <- prometheus.MustNewConstMetric(reloadsDesc, prometheus.CounterValue, float64(l.good.Load()), e.name, "loaded")
			to <- prometheus.MustNewConstMetric(reloadsDesc, prometheus.CounterValue, float64(l.bad.Load()), e.name, "failed")
		}
		for _, v := range e.versions {
			r := &reading{v: v, stats: v.q.Stats()}
			r.sessions, r.bytes = c.s.sessions.Count(v.q)
			for _, m := range metrics {
				values := []string{e.name, v.number}
				if m.label != "" {
					values = append(values, m.label)
				}
				to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(r), values...)
			}
			for _, h := range []prometheus.Histogram{v.meter.stepSeconds, v.meter.stepRows, v.meter.queueSeconds, v.meter.answerMillis} {
				h.Collect(to)
			}
		}
	}
}

// metricsHandler answers with the metrics of the served models, of the Go runtime and of
// the process, in Prometheus' text form or in OpenMetrics'. Counters of a version begin at
// zero when it is loaded anew.
func (s *Server) metricsHandler() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

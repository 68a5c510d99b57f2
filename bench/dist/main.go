// Command dist measures what training with several processes costs.
//
//	go run ./bench/dist --pass cores
//	sudo go run ./bench/dist --pass network --python venv/bin/python
//
// cores compares two ranks of one thread with one process of two threads, on the same model and the
// same batches, by the commands that a user would type.
//
// network compares the time that a step of four ranks waits for their sums with that of PyTorch's
// DistributedDataParallel over gloo, on links of 1 Gbit/s. Each rank has a network namespace of its
// own, named carousel-bench-*, joined by a bridge; both sides have the same model, weights, batches,
// links and cores, and take turns. Python needs torch and numpy, namespaces need root, ip and tc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

type options struct {
	pass, python, rate, compute string
	rounds, ranks, steps        int
	rank                        string // of this process, if it is one
}

func main() {
	var o options
	flag.StringVar(&o.pass, "pass", "network", "what is measured: cores or network")
	flag.StringVar(&o.python, "python", "python3", "pass network: a Python `interpreter` that has torch and numpy")
	flag.StringVar(&o.rate, "rate", "1gbit", "pass network: the `rate` of a link in each direction, as tc writes it, or none")
	flag.StringVar(&o.compute, "compute", "", "pass network: real, or timer: large operations wait for as long as they take alone (default timer if there are more ranks than cores)")
	flag.IntVar(&o.ranks, "ranks", 4, "pass network: how many ranks")
	flag.IntVar(&o.steps, "steps", 8, "pass network: steps of a turn that are measured")
	flag.IntVar(&o.rounds, "rounds", 7, "how often each side has its turn")
	flag.StringVar(&o.rank, "rank", "", "used by the program itself")
	flag.Parse()
	measure := map[string]func(*options, context.Context, io.Writer) error{"cores": (*options).cores, "network": (*options).network}[o.pass]
	if flag.NArg() > 0 || measure == nil || o.rounds < 1 || o.steps < 1 || o.ranks < 2 || !slices.Contains([]string{"", "real", "timer"}, o.compute) {
		fmt.Fprintln(os.Stderr, "dist: takes flags only; --pass is cores or network, --compute real or timer, --ranks 2 or more, --rounds and --steps 1 or more")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if o.rank != "" {
		err = serve(ctx, o.rank, os.Stdin, os.Stdout)
	} else {
		err = measure(&o, ctx, os.Stdout)
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

func mean(list []float64) float64 {
	sum := 0.0
	for _, v := range list {
		sum += v
	}
	return sum / float64(len(list))
}

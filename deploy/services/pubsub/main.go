// A Pub/Sub server in memory: Google's own fake for tests, as a program. It listens on the loopback only.
package main

import (
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"cloud.google.com/go/pubsub/v2/pstest"
)

func main() {
	port := flag.Int("port", 0, "the port to listen on")
	flag.Parse()
	server := pstest.NewServerWithPort(*port)
	defer server.Close()
	log.Println("listening on", server.Addr)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
}

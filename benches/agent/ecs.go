package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// door is the ECS door over one kept connection.
type door struct {
	url    string
	client http.Client
}

func mac(key []byte, text string) []byte {
	hash := hmac.New(sha256.New, key)
	hash.Write([]byte(text))
	return hash.Sum(nil)
}

func digest(content []byte) string {
	hash := sha256.Sum256(content)
	return hex.EncodeToString(hash[:])
}

// sign adds a signature of AWS's version 4.
func sign(request *http.Request, body []byte, target string) {
	const region = "us-east-1"
	now := time.Now().UTC()
	day, moment := now.Format("20060102"), now.Format("20060102T150405Z")
	request.Header.Set("X-Amz-Date", moment)
	request.Header.Set("X-Amz-Target", target)
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	const signed = "content-type;host;x-amz-date;x-amz-target"
	canonical := fmt.Sprintf("POST\n/\n\ncontent-type:application/x-amz-json-1.1\nhost:%s\nx-amz-date:%s\nx-amz-target:%s\n\n%s\n%s",
		request.URL.Host, moment, target, signed, digest(body))
	scope := day + "/" + region + "/ecs/aws4_request"
	text := "AWS4-HMAC-SHA256\n" + moment + "\n" + scope + "\n" + digest([]byte(canonical))
	key := mac(mac(mac(mac([]byte("AWS4"+os.Getenv("AWS_SECRET_ACCESS_KEY")), day), region), "ecs"), "aws4_request")
	request.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		os.Getenv("AWS_ACCESS_KEY_ID"), scope, signed, hex.EncodeToString(mac(key, text))))
}

type object map[string]any

func (d *door) call(action string, input object, output any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, d.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	sign(request, body, "AmazonEC2ContainerServiceV20141113."+action)
	answer, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", action, answer.Status, content)
	}
	return json.Unmarshal(content, output)
}

type described struct {
	Tasks []struct {
		TaskArn       string `json:"taskArn"`
		LastStatus    string `json:"lastStatus"`
		StoppedReason string `json:"stoppedReason"`
	} `json:"tasks"`
	Failures []object `json:"failures"`
}

// await asks until the task has a status.
func (d *door) await(arn, status string) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		var now described
		if err := d.call("DescribeTasks", object{"tasks": []string{arn}}, &now); err != nil {
			return err
		}
		if len(now.Tasks) != 1 {
			return fmt.Errorf("DescribeTasks: %v", now.Failures)
		}
		if now.Tasks[0].LastStatus == status {
			return nil
		}
		if now.Tasks[0].LastStatus == "STOPPED" {
			return fmt.Errorf("%s: STOPPED: %s", arn, now.Tasks[0].StoppedReason)
		}
		time.Sleep(500 * time.Microsecond)
	}
	return fmt.Errorf("%s: not %s within 30 s", arn, status)
}

// launches measures RunTask until DescribeTasks says RUNNING, with both networks.
func launches(address string, rounds int) ([]row, error) {
	if _, err := url.Parse(address); err != nil {
		return nil, err
	}
	d := &door{url: address}
	var rows []row
	for _, network := range []struct {
		mode  string
		limit float64
	}{{"none", 25}, {"bridge", 60}} {
		definition := object{
			"family": "bench-" + network.mode, "networkMode": network.mode,
			"containerDefinitions": []object{{
				"name": "main", "image": image, "memory": 64, "essential": true,
				// Asked to stop before the shell has set its trap, it does not hear of it.
				"stopTimeout": 2,
				"command": []string{"sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"},
			}},
		}
		var ignored object
		if err := d.call("RegisterTaskDefinition", definition, &ignored); err != nil {
			return nil, err
		}
		var times []time.Duration
		for range rounds {
			var run described
			begin := time.Now()
			if err := d.call("RunTask", object{"taskDefinition": definition["family"]}, &run); err != nil {
				return nil, err
			}
			if len(run.Tasks) != 1 {
				return nil, fmt.Errorf("RunTask: %v", run.Failures)
			}
			arn := run.Tasks[0].TaskArn
			if err := d.await(arn, "RUNNING"); err != nil {
				return nil, err
			}
			times = append(times, time.Since(begin))
			if err := d.call("StopTask", object{"task": arn}, &ignored); err != nil {
				return nil, err
			}
			if err := d.await(arn, "STOPPED"); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row{"ECS RunTask to RUNNING, network " + network.mode, median(times), 0, "ms", network.limit})
	}
	return rows, nil
}

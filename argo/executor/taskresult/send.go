package taskresult

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxReply bounds what is read of a reply, in bytes. It holds the object, of which the API server stores 1.5 MiB
// at most.
const maxReply = 8 << 20

// maxWaits is how often the API server may ask to wait for one request, as in client-go.
const maxWaits = 10

// send makes a request. While the API server says when to ask again (Retry-After), it does.
func (c *Client) send(ctx context.Context, method, path, contentType string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode the task result: %w", err)
	}
	for waits := 0; ; waits++ {
		after, err := c.sendOnce(ctx, method, path, contentType, body)
		if err == nil || after == 0 || waits == maxWaits {
			return err
		}
		if waitErr := sleep(ctx, after); waitErr != nil {
			return err
		}
	}
}

// sendOnce returns, beside the error, after which time to ask again, 0 if the API server does not say so.
func (c *Client) sendOnce(ctx context.Context, method, path, contentType string, body []byte) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.config.Host+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	token, err := readSmall(c.config.TokenFile)
	if err != nil {
		return 0, fmt.Errorf("read the token of the service account: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", c.config.UserAgent)
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return 0, fmt.Errorf("read the API server's reply: %w", err)
	}
	if response.StatusCode/100 == 2 {
		return 0, nil
	}
	return askAgain(response), newStatus(method, response.StatusCode, reply)
}

// askAgain returns the time of a Retry-After header that client-go honours.
func askAgain(response *http.Response) time.Duration {
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode/100 != 5 {
		return 0
	}
	seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, 3600)) * time.Second
}

// Status is the error of a request that the API server has refused (metav1.Status).
type Status struct {
	Message string
	Reason  string
	Code    int
}

func (s *Status) Error() string { return s.Message }

// newStatus returns the error in a reply, or for a reply without one the error that client-go makes of the code
// (apimachinery's errors.NewGenericServerResponse).
func newStatus(method string, code int, reply []byte) *Status {
	var said struct {
		Kind, Status, Message, Reason string
		Code                          int
	}
	if json.Unmarshal(reply, &said) == nil && said.Kind == "Status" && said.Status != "Success" && said.Message != "" {
		return &Status{Message: said.Message, Reason: said.Reason, Code: code}
	}
	const noun = resource + "." + group
	verb := strings.ToLower(method)
	reason, message := "Unknown", fmt.Sprintf("the server responded with the status code %d but did not return more information", code)
	switch code {
	case http.StatusConflict:
		reason, message = "Conflict", "the server reported a conflict"
		if method == http.MethodPost {
			reason = "AlreadyExists"
		}
	case http.StatusNotFound:
		reason, message = "NotFound", "the server could not find the requested resource"
	case http.StatusUnauthorized:
		reason, message = "Unauthorized", "the server has asked for the client to provide credentials"
	case http.StatusForbidden:
		reason, message = "Forbidden", strings.TrimSpace(string(reply))
	case http.StatusTooManyRequests:
		reason, message = "TooManyRequests", "the server has received too many requests and has asked us to try again later"
	case http.StatusServiceUnavailable:
		reason, message = "ServiceUnavailable", "the server is currently unable to handle the request"
	case http.StatusGatewayTimeout:
		reason, message = "Timeout", "the server was unable to return a response in the time allotted, but may still be processing the request"
	case http.StatusInternalServerError:
		reason, message = "InternalError", "an error on the server ("+strconv.Quote(strings.TrimSpace(string(reply[:min(len(reply), 2048)])))+") has prevented the request from succeeding"
	}
	return &Status{Message: fmt.Sprintf("%s (%s %s)", message, verb, noun), Reason: reason, Code: code}
}

// hasReason reports whether err is the API server's with a reason or, without a reason, with a code.
func hasReason(err error, reason string, code int) bool {
	var s *Status
	if !errors.As(err, &s) {
		return false
	}
	return s.Reason == reason || code != 0 && (s.Reason == "" || s.Reason == "Unknown") && s.Code == code
}

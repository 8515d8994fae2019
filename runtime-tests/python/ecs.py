"""Clients of the agent's ECS door: boto3, and the aws command line tool.

    ecs.py SCENARIO

The environment names the agent: ECS_ENDPOINT, ECS_ROOT (its --root), CORTEN (a command line for its files), and AWS
(the aws command). A scenario that fails ends with an assertion.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3
import botocore.exceptions
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ENDPOINT = os.environ["ECS_ENDPOINT"]
REGION = "us-east-1"
IMAGE = "localhost/test:latest"
TARGET = "AmazonEC2ContainerServiceV20141113."
PATIENCE = float(os.environ.get("ECS_PATIENCE", "60"))

ecs = boto3.client("ecs", region_name=REGION, endpoint_url=ENDPOINT)


def container(name, *command, **more):
    return {"name": name, "image": IMAGE, "memory": 64, "command": list(command)} | more


def shell(name, script, **more):
    return container(name, "sh", "-c", script, **more)


def register(family, *containers, **more):
    more = {"networkMode": "none"} | more
    answer = ecs.register_task_definition(family=family, containerDefinitions=list(containers), **more)
    return answer["taskDefinition"]


def run(family, **more):
    answer = ecs.run_task(taskDefinition=family, **more)
    assert not answer["failures"], answer["failures"]
    return answer["tasks"][0]["taskArn"]


def describe(arn):
    answer = ecs.describe_tasks(tasks=[arn])
    assert not answer["failures"], answer["failures"]
    return answer["tasks"][0]


def until(arn, wanted, what):
    """The task once `wanted(task)` is true."""
    end = time.monotonic() + PATIENCE
    while True:
        task = describe(arn)
        if wanted(task):
            return task
        assert time.monotonic() < end, f"{what}: {json.dumps(task, default=str, indent=1)}"
        time.sleep(0.05)


def running(arn):
    task = until(arn, lambda task: task["lastStatus"] != "PENDING", "not PENDING any more")
    assert task["lastStatus"] == "RUNNING", json.dumps(task, default=str, indent=1)
    return task


def stopped(arn):
    return until(arn, lambda task: task["lastStatus"] == "STOPPED", "STOPPED")


def by_name(task):
    return {known["name"]: known for known in task["containers"]}


def logs(known):
    command = os.environ["CORTEN"].split() + ["logs", known["runtimeId"]]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def refused(code, text, call, **arguments):
    """The call is answered with this error, whose message has `text`."""
    try:
        answer = call(**arguments)
    except botocore.exceptions.ClientError as error:
        told = error.response["Error"]
        assert told["Code"] == code, error
        assert text in told["Message"], error
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error
        assert error.response["ResponseMetadata"]["RequestId"], error
        return
    raise AssertionError(f"was taken: {arguments}: {answer}")


def aws(*words):
    command = [os.environ["AWS"], "--endpoint-url", ENDPOINT, "--region", REGION, "--output", "json", "ecs", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return json.loads(done.stdout) if done.stdout.strip() else None


def three():
    """A database with a health check, a job that needs it healthy, a server that needs the job's success."""
    definition = {
        "family": "three",
        "networkMode": "bridge",
        "volumes": [{"name": "data"}],
        "containerDefinitions": [
            shell(
                "db",
                "sleep 1; echo rows > /data/table; echo database is up; trap 'echo bye; exit 0' TERM; while :; do sleep 1; done",
                healthCheck={"command": ["CMD-SHELL", "test -f /data/table"], "interval": 5, "retries": 3},
                mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}],
                environment=[{"name": "ROLE", "value": "db"}],
            ),
            shell(
                "job",
                "echo found $(cat /data/table); echo page > /data/index.html",
                essential=False,
                dependsOn=[{"containerName": "db", "condition": "HEALTHY"}],
                mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}],
            ),
            shell(
                "server",
                "echo serving; exec httpd -f -p 80 -h /data",
                dependsOn=[{"containerName": "job", "condition": "SUCCESS"}],
                mountPoints=[{"sourceVolume": "data", "containerPath": "/data", "readOnly": True}],
                portMappings=[{"containerPort": 80}],
                stopTimeout=2,
            ),
        ],
    }
    arn = aws("register-task-definition", "--cli-input-json", json.dumps(definition))["taskDefinition"]["taskDefinitionArn"]
    assert arn.endswith(":task-definition/three:1"), arn
    started = aws("run-task", "--task-definition", "three", "--started-by", "test", "--tags", "key=a,value=b")
    assert started["failures"] == [] and len(started["tasks"]) == 1, started
    task = started["tasks"][0]["taskArn"]
    assert started["tasks"][0]["lastStatus"] == "PENDING"
    waiting = until(task, lambda task: by_name(task)["db"]["lastStatus"] == "RUNNING", "db runs")
    assert "to be healthy" in by_name(waiting)["job"].get("reason", ""), waiting
    ready = running(task)
    known = by_name(ready)
    assert known["db"]["healthStatus"] == "HEALTHY", known["db"]
    assert (known["job"]["lastStatus"], known["job"]["exitCode"]) == ("STOPPED", 0), known["job"]
    assert known["server"]["lastStatus"] == "RUNNING", known["server"]
    for member in ["createdAt", "pullStartedAt", "pullStoppedAt", "startedAt"]:
        assert member in ready, member
    assert aws("list-tasks", "--started-by", "test")["taskArns"] == [task]
    assert aws("describe-tasks", "--tasks", task, "--include", "TAGS")["tasks"][0]["tags"] == [{"key": "a", "value": "b"}]
    assert logs(known["db"]) == "database is up\n" and logs(known["job"]) == "found rows\n", logs(known["job"])
    [binding] = known["server"]["networkBindings"]
    assert binding["containerPort"] == 80 and binding["hostPort"] > 0, binding
    with urllib.request.urlopen(f"http://127.0.0.1:{binding['hostPort']}/") as page:
        assert page.read() == b"page\n"
    aws("stop-task", "--task", task, "--reason", "enough")
    aws("wait", "tasks-stopped", "--tasks", task)
    ended = describe(task)
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "enough"), ended
    assert ended["desiredStatus"] == "STOPPED" and "stoppedAt" in ended and "executionStoppedAt" in ended
    known = by_name(ended)
    assert known["db"]["exitCode"] == 0 and logs(known["db"]).endswith("bye\n"), known["db"]


def errors():
    """Each documented error, and that nothing was made."""
    good = shell("a", "exit 0")
    register("good", good)

    def wrong(text, *containers, **more):
        arguments = {"family": "bad", "containerDefinitions": list(containers)} | more
        refused("ClientException", text, ecs.register_task_definition, **arguments)

    wrong("containerDefinitions[0].links[0]: is not supported", good | {"links": ["b"]})
    wrong("volumes[0].efsVolumeConfiguration: this parameter", good, volumes=[{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "x"}}])
    wrong("memory or memoryReservation", {"name": "a", "image": IMAGE})
    wrong("form a cycle", good | {"dependsOn": [{"containerName": "b", "condition": "START"}]}, shell("b", "exit 0", dependsOn=[{"containerName": "a", "condition": "START"}]))
    wrong("there is no container", good | {"dependsOn": [{"containerName": "x", "condition": "START"}]})
    wrong("logDriver", good | {"logConfiguration": {"logDriver": "awslogs"}})
    wrong("FARGATE", good, requiresCompatibilities=["FARGATE"])
    refused("ClientException", "Unable to describe", ecs.describe_task_definition, taskDefinition="bad")
    refused("ClientException", "TaskDefinition not found", ecs.run_task, taskDefinition="bad")
    refused("ClusterNotFoundException", "Cluster not found", ecs.run_task, taskDefinition="good", cluster="x")
    refused("ClusterNotFoundException", "Cluster not found", ecs.list_tasks, cluster="x")
    refused("InvalidParameterException", "count", ecs.run_task, taskDefinition="good", count=11)
    refused("ClientException", "FARGATE", ecs.run_task, taskDefinition="good", launchType="FARGATE")
    refused("InvalidParameterException", "Override for container named x", ecs.run_task, taskDefinition="good", overrides={"containerOverrides": [{"name": "x"}]})
    refused("InvalidParameterException", "not valid for the given networkMode", ecs.run_task, taskDefinition="good", networkConfiguration={"awsvpcConfiguration": {"subnets": ["s"]}})
    register("vpc", good, networkMode="awsvpc")
    refused("InvalidParameterException", "Network Configuration must be provided", ecs.run_task, taskDefinition="vpc")
    refused("InvalidParameterException", "was not found", ecs.stop_task, task="0" * 32)
    refused("InvalidParameterException", "Invalid identifier", ecs.describe_tasks, tasks=["x"])
    refused("InvalidParameterException", "maxResults", ecs.list_tasks, maxResults=101)
    refused("InvalidParameterException", "nextToken", ecs.list_clusters, nextToken="!")
    refused("UnknownOperationException", "ListServices", ecs.list_services)
    refused("ClientException", "enableExecuteCommand", ecs.run_task, taskDefinition="good", enableExecuteCommand=True)
    missing = ecs.describe_tasks(tasks=["0" * 32])["failures"]
    assert missing == [{"arn": f"arn:aws:ecs:{REGION}:000000000000:task/default/{'0' * 32}", "reason": "MISSING"}], missing
    assert ecs.describe_clusters(clusters=["x"])["failures"][0]["reason"] == "MISSING"

    def lacks(reason, **overrides):
        answer = ecs.run_task(taskDefinition="good", overrides=overrides)
        assert answer["tasks"] == [] and [known["reason"] for known in answer["failures"]] == [reason], answer

    lacks("RESOURCE:MEMORY", containerOverrides=[{"name": "a", "memory": 16 * 1024 * 1024}])
    lacks("RESOURCE:CPU", containerOverrides=[{"name": "a", "cpu": 262144}])
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        register("port", good | {"portMappings": [{"containerPort": 80, "hostPort": port}]}, networkMode="bridge")
        answer = ecs.run_task(taskDefinition="port")
        assert answer["tasks"] == [] and answer["failures"][0]["reason"] == "RESOURCE:PORTS", answer

    inactive = ecs.deregister_task_definition(taskDefinition="good:1")["taskDefinition"]
    assert inactive["status"] == "INACTIVE" and "deregisteredAt" in inactive
    refused("ClientException", "TaskDefinition is inactive", ecs.run_task, taskDefinition="good:1")
    assert ecs.list_task_definitions(familyPrefix="good")["taskDefinitionArns"] == []
    assert len(ecs.list_task_definitions(familyPrefix="good", status="INACTIVE")["taskDefinitionArns"]) == 1
    assert ecs.list_tasks()["taskArns"] == [] and ecs.list_tasks(desiredStatus="STOPPED")["taskArns"] == []


def post(body=b"{}", operation="ListClusters", sign=lambda request: None, **headers):
    """The status and the error of a request as it is."""
    fixed = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": TARGET + operation}
    request = AWSRequest("POST", ENDPOINT + "/", headers=fixed | headers, data=body)
    sign(request)
    plain = urllib.request.Request(ENDPOINT + "/", data=request.body, headers=dict(request.headers))
    try:
        with urllib.request.urlopen(plain) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        told = json.load(error)
        assert error.headers["x-amzn-errortype"] == told["__type"] and error.headers["x-amzn-requestid"]
        return error.code, told["__type"]


def signatures():
    """Who has no key, a wrong one, or changes what was signed, is sent away."""
    own = boto3.Session().get_credentials().get_frozen_credentials()

    def signer(key=own.access_key, secret=own.secret_key, region=REGION, service="ecs", then=lambda request: None):
        def sign(request):
            SigV4Auth(Credentials(key, secret), service, region).add_auth(request)
            then(request)

        return sign

    def change(name, value):
        def then(request):
            del request.headers[name]
            request.headers[name] = value

        return then

    def body(request):
        request.data = b'{"maxResults": 1}'

    assert post(sign=signer())[0] == 200
    for wanted, sign in [
        ("MissingAuthenticationTokenException", lambda request: None),
        ("UnrecognizedClientException", signer(key="AKIAAAAAAAAAAAAAAAAA")),
        ("InvalidSignatureException", signer(secret="x" * 40)),
        ("InvalidSignatureException", signer(region="eu-west-1")),
        ("InvalidSignatureException", signer(service="sqs")),
        ("InvalidSignatureException", signer(then=change("X-Amz-Target", TARGET + "RunTask"))),
        ("InvalidSignatureException", signer(then=body)),
        ("IncompleteSignatureException", signer(then=change("X-Amz-Date", "now"))),
        ("IncompleteSignatureException", signer(then=change("Authorization", "AWS4-HMAC-SHA256 x"))),
    ]:
        assert post(sign=sign) == (400, wanted), (wanted, post(sign=sign))
    assert post(b"{", sign=signer()) == (400, "SerializationException")
    assert post(b'{"x": 1}', sign=signer()) == (400, "ClientException")
    assert post(operation="Nothing", sign=signer()) == (400, "UnknownOperationException")
    status, told = post(b'"' + b"x" * (1 << 20) + b'"', sign=signer())
    assert (status, told) == (400, "SerializationException"), (status, told)
    mode = os.stat(os.path.join(os.environ["ECS_ROOT"], "agent/ecs-credentials")).st_mode & 0o777
    assert mode == 0o600, oct(mode)


def ends():
    """How tasks end, and what is told of it."""
    register("code", shell("a", "exit 7"))
    ended = stopped(run("code"))
    assert (ended["stopCode"], ended["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited"), ended
    assert by_name(ended)["a"]["exitCode"] == 7

    register("dependency", shell("job", "exit 3", essential=False), shell("main", "exit 0", dependsOn=[{"containerName": "job", "condition": "SUCCESS"}]))
    ended = stopped(run("dependency"))
    assert ended["stopCode"] == "TaskFailedToStart" and "exit code 3" in ended["stoppedReason"], ended
    assert "exitCode" not in by_name(ended)["main"] and by_name(ended)["job"]["exitCode"] == 3

    register("image", container("a", "true", image="127.0.0.1:1/none:1"), shell("b", "sleep 100", essential=False))
    ended = stopped(run("image"))
    assert ended["stopCode"] == "TaskFailedToStart", ended
    assert ended["stoppedReason"].startswith("CannotPullContainerError: "), ended
    assert by_name(ended)["a"]["reason"].startswith("CannotPullContainerError: "), ended

    register("program", container("a", "/no/such/program"))
    ended = stopped(run("program"))
    assert ended["stopCode"] == "TaskFailedToStart", ended
    assert ended["stoppedReason"].startswith("CannotStartContainerError: "), ended

    register("secret", shell("a", "exit 0", secrets=[{"name": "A", "valueFrom": "absent"}]))
    ended = stopped(run("secret"))
    assert ended["stoppedReason"].startswith("ResourceInitializationError: secret"), ended

    register("memory", shell("a", "exec tail /dev/zero", memory=16))
    ended = stopped(run("memory"))
    assert by_name(ended)["a"]["reason"].startswith("OutOfMemoryError: "), ended
    assert by_name(ended)["a"]["exitCode"] == 137, ended

    register("deaf", shell("a", "trap '' TERM; while :; do sleep 1; done", stopTimeout=1))
    arn = run("deaf")
    running(arn)
    began = time.monotonic()
    ecs.stop_task(task=arn)
    ended = stopped(arn)
    assert time.monotonic() - began >= 1, "killed before its stopTimeout"
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "Task stopped by user"), ended
    assert by_name(ended)["a"]["exitCode"] == 137, ended

    check = {"command": ["CMD-SHELL", "sleep 100"], "interval": 5, "timeout": 2, "retries": 1}
    register("sick", shell("a", "sleep 100", healthCheck=check, stopTimeout=1))
    arn = run("sick")
    task = until(arn, lambda task: task["healthStatus"] == "UNHEALTHY", "UNHEALTHY")
    assert task["lastStatus"] == "RUNNING" and by_name(task)["a"]["healthStatus"] == "UNHEALTHY", task
    ecs.stop_task(task=arn)
    stopped(arn)


def inside():
    """What a container finds: variables, secrets, volumes, limits, and how it was changed by overrides."""
    host = os.path.join(os.environ["ECS_ROOT"], "shared")
    register(
        "inside",
        shell(
            "first",
            "echo $GREETING $SECRET $AWS_REGION $AWS_EXECUTION_ENV; echo $ECS_CONTAINER_METADATA_URI_V4; echo $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;"
            "ulimit -n; pwd; id -u; touch /readonly 2>/dev/null || echo read-only; df -m /t | tail -1 | awk '{print $2}';"
            "echo seen > /own/file; cat /host/file; touch /host/x 2>/dev/null || echo host is read-only; cat /proc/sys/net/core/somaxconn; hostname",
            environment=[{"name": "GREETING", "value": "hello"}],
            secrets=[{"name": "SECRET", "valueFrom": "password"}],
            mountPoints=[
                {"sourceVolume": "own", "containerPath": "/own"},
                {"sourceVolume": "host", "containerPath": "/host", "readOnly": True},
            ],
            ulimits=[{"name": "nofile", "softLimit": 100, "hardLimit": 200}],
            workingDirectory="/tmp",
            user="0",
            readonlyRootFilesystem=True,
            linuxParameters={"tmpfs": [{"containerPath": "/t", "size": 3}]},
            systemControls=[{"namespace": "net.core.somaxconn", "value": "77"}],
            hostname="named",
            essential=False,
        ),
        shell(
            "second",
            "cat /own/file; echo $GREETING; exit 5",
            environment=[{"name": "GREETING", "value": "hello"}],
            mountPoints=[{"sourceVolume": "own", "containerPath": "/own"}],
            dependsOn=[{"containerName": "first", "condition": "SUCCESS"}],
        ),
        volumes=[{"name": "own"}, {"name": "host", "host": {"sourcePath": host}}],
        taskRoleArn="arn:aws:iam::000000000000:role/r",
    )
    os.makedirs(host, exist_ok=True)
    with open(os.path.join(host, "file"), "w", encoding="utf-8") as file:
        file.write("from the host\n")
    over = [{"name": "second", "environment": [{"name": "GREETING", "value": "other"}]}]
    ended = stopped(run("inside", overrides={"containerOverrides": over}))
    known = by_name(ended)
    lines = logs(known["first"]).splitlines()
    assert lines[0] == "hello hunter2 us-east-1 AWS_ECS_EC2", lines
    assert lines[1].startswith("http://169.254.170.2/v4/") and len(lines[1]) == 24 + 64, lines
    assert lines[2].startswith("/v2/credentials/") and len(lines[2]) == 16 + 64, lines
    assert lines[3:6] == ["100", "/tmp", "0"], lines
    assert lines[6:] == ["read-only", "3", "from the host", "host is read-only", "77", "named"], lines
    assert logs(known["second"]) == "seen\nother\n", logs(known["second"])
    assert known["second"]["exitCode"] == 5
    assert ended["overrides"]["containerOverrides"][0]["environment"][0]["value"] == "other"


def lists():
    """Pages, filters, and requests that are told twice."""
    ecs.create_cluster(clusterName="other", tags=[{"key": "k", "value": "v"}])
    assert ecs.describe_clusters(clusters=["other"], include=["TAGS"])["clusters"][0]["tags"] == [{"key": "k", "value": "v"}]
    assert len(ecs.list_clusters()["clusterArns"]) == 2
    sleep = container("a", "sleep", "100", stopTimeout=1, memory=6)
    for _ in range(3):
        register("sleep", sleep)
    pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix="sleep", PaginationConfig={"PageSize": 1})
    arns = [arn for page in pages for arn in page["taskDefinitionArns"]]
    assert [arn.split(":")[-1] for arn in arns] == ["1", "2", "3"], arns
    newest = ecs.list_task_definitions(familyPrefix="sleep", sort="DESC", maxResults=1)
    assert newest["taskDefinitionArns"][0].endswith(":3") and newest["nextToken"]
    assert ecs.list_task_definition_families()["families"] == ["sleep"]

    first = ecs.run_task(taskDefinition="sleep", count=3, clientToken="once", group="g")
    again = ecs.run_task(taskDefinition="sleep", count=3, clientToken="once", group="g")
    ids = lambda answer: sorted(task["taskArn"] for task in answer["tasks"])
    assert len(ids(first)) == 3 and ids(first) == ids(again)
    refused("ConflictException", "clientToken", ecs.run_task, taskDefinition="sleep", count=2, clientToken="once")
    for arn in ids(first):
        running(arn)
    pages = ecs.get_paginator("list_tasks").paginate(PaginationConfig={"PageSize": 2})
    assert sorted(arn for page in pages for arn in page["taskArns"]) == ids(first)
    assert ecs.list_tasks(family="x")["taskArns"] == [] and ecs.list_tasks(cluster="other")["taskArns"] == []
    assert ecs.list_tasks(desiredStatus="PENDING")["taskArns"] == []
    assert ecs.describe_clusters()["clusters"][0]["runningTasksCount"] == 3

    [instance] = ecs.list_container_instances()["containerInstanceArns"]
    [told] = ecs.describe_container_instances(containerInstances=[instance])["containerInstances"]
    amounts = lambda which: {known["name"]: known.get("integerValue") for known in told[which]}
    assert amounts("registeredResources")["MEMORY"] - amounts("remainingResources")["MEMORY"] == 18, told
    assert told["runningTasksCount"] == 3 and told["agentConnected"]
    assert ecs.list_tasks(containerInstance=instance)["taskArns"]
    for arn in ids(first):
        ecs.stop_task(task=arn, reason="over")
    for arn in ids(first):
        assert stopped(arn)["stoppedReason"] == "over"
    assert sorted(ecs.list_tasks(desiredStatus="STOPPED")["taskArns"]) == ids(first)


def networks():
    """The four network modes."""
    address = "ip -4 -o addr show | awk '{print $4}' | tr '\\n' ' '"
    seen = {}
    for mode in ["none", "host", "bridge", "awsvpc"]:
        more = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}} if mode == "awsvpc" else {}
        ports = [] if mode == "none" else [{"containerPort": 8099}]
        one = shell("one", f"{address}; exec sleep 100", portMappings=ports, stopTimeout=1)
        two = shell("two", f"{address}; exec sleep 100", stopTimeout=1)
        register(mode, one, two, networkMode=mode)
        arn = run(mode, **more)
        task = running(arn)
        known = by_name(task)
        said = until_said(known["one"])
        assert said == until_said(known["two"]), "the containers of a task share their network"
        seen[mode] = said
        bindings = known["one"]["networkBindings"]
        if mode == "awsvpc":
            [interface] = known["one"]["networkInterfaces"]
            assert interface["privateIpv4Address"] in said and bindings == [], known
            details = {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}
            assert details["subnetId"] == "subnet-1" and details["privateIPv4Address"] == interface["privateIpv4Address"]
        elif mode == "none":
            assert bindings == []
        else:
            assert [binding["containerPort"] for binding in bindings] == [8099], bindings
            assert (bindings[0]["hostPort"] == 8099) == (mode == "host"), bindings
        ecs.stop_task(task=arn)
        stopped(arn)
    assert seen["none"].split() in ([], ["127.0.0.1/8"]), seen
    assert len(seen["host"].split()) >= 2, seen


def until_said(known):
    end = time.monotonic() + PATIENCE
    while True:
        said = logs(known)
        if said or time.monotonic() > end:
            return said
        time.sleep(0.05)


def before_restart():
    """Tasks in every state, for `after_restart`."""
    register("lives", shell("a", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done", stopTimeout=1))
    register("waits", shell("slow", "sleep 6; exit 0", essential=False), shell("main", "echo at last; sleep 100", stopTimeout=1, dependsOn=[{"containerName": "slow", "condition": "SUCCESS"}]))
    register("ends", shell("a", "sleep 3; exit 9"))
    arns = {family: run(family) for family in ["lives", "waits", "ends"]}
    for family in ["lives", "ends"]:
        running(arns[family])
    until(arns["waits"], lambda task: by_name(task)["slow"]["lastStatus"] == "RUNNING", "slow runs")
    with open(os.path.join(os.environ["ECS_ROOT"], "arns.json"), "w", encoding="utf-8") as file:
        json.dump(arns, file)


def after_restart():
    """Nothing of the tasks was lost by the kill of the agent."""
    with open(os.path.join(os.environ["ECS_ROOT"], "arns.json"), encoding="utf-8") as file:
        arns = json.load(file)
    ended = stopped(arns["ends"])
    assert (ended["stopCode"], by_name(ended)["a"]["exitCode"]) == ("EssentialContainerExited", 9), ended
    task = running(arns["waits"])
    assert by_name(task)["slow"]["exitCode"] == 0, task
    lives = running(arns["lives"])
    for arn in [arns["waits"], arns["lives"]]:
        ecs.stop_task(task=arn)
    for arn in [arns["waits"], arns["lives"]]:
        stopped(arn)
    lines = [int(line) for line in logs(by_name(lives)["a"]).splitlines()]
    assert lines == list(range(1, len(lines) + 1)) and len(lines) > 20, lines
    assert len(ecs.list_task_definitions()["taskDefinitionArns"]) == 3


def cleanup():
    """Stops everything."""
    arns = [arn for page in ecs.get_paginator("list_tasks").paginate() for arn in page["taskArns"]]
    for arn in arns:
        ecs.stop_task(task=arn)
    for arn in arns:
        stopped(arn)


if __name__ == "__main__":
    globals()[sys.argv[1]]()

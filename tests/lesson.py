"""The lesson's plain script, in our words: what a student writes first, and our yardstick.

    python tests/lesson.py mlp --root results/data --output lesson.safetensors

It knows nothing of the project: torchvision's data set, a transform per image, a DataLoader, one
file for the network and the loop. It prints one line of JSON per epoch and saves the weights.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc2(x), dim=1)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout2d(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


def read(root):
    """Return training and test set as the lesson reads them: a transform per image."""
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    return (datasets.MNIST(root, train=train, transform=transform) for train in (True, False))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=("mlp", "cnn"))
    parser.add_argument("--root", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--preload", action="store_true", help="keep all batches on the device, out of the timing"
    )
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    train_set, test_set = read(args.root)
    train_loader = DataLoader(train_set, batch_size=64, shuffle=args.shuffle)
    test_loader = DataLoader(test_set, batch_size=1000)
    if args.preload:
        train_loader, test_loader = (
            [(data.to(args.device), target.to(args.device)) for data, target in loader]
            for loader in (train_loader, test_loader)
        )
    model = (Perceptron() if args.network == "mlp" else Convolutional()).to(args.device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)

    for epoch in range(1, args.epochs + 1):
        clock = time.perf_counter()
        model.train()
        for data, target in train_loader:
            data, target = data.to(args.device), target.to(args.device)
            optimizer.zero_grad()
            F.nll_loss(model(data), target).backward()
            optimizer.step()
        if args.device == "cuda":
            torch.cuda.synchronize()
        trained = time.perf_counter()
        model.eval()
        loss, correct = 0.0, 0
        with torch.no_grad():
            for data, target in test_loader:
                data, target = data.to(args.device), target.to(args.device)
                output = model(data)
                loss += F.nll_loss(output, target, reduction="sum").item()
                correct += output.argmax(dim=1).eq(target).sum().item()
        size = len(test_set)
        row = {"epoch": epoch, "loss": loss / size, "correct": correct, "size": size}
        row |= {"train_seconds": trained - clock, "eval_seconds": time.perf_counter() - trained}
        print(json.dumps(row), flush=True)
        scheduler.step()
    save_file(model.state_dict(), args.output)


if __name__ == "__main__":
    main()

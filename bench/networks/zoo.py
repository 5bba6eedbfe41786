"""Exports networks as PyTorch users have them, with random weights: timm's images and transformers' texts, sounds and images.

torch==2.15.0 timm==1.0.31 transformers==5.24.0 onnx==1.23.2 onnxscript==0.7.2 numpy

    zoo.py DIR                          writes DIR/<network>.onnx and, beside each, its inputs as .npz; what is there already stays
    go run ./bench/networks DIR/*.onnx  holds them against onnxruntime

Both of torch's exporters take turns. What an exporter cannot write is named and left out.
"""

import logging
import os
import sys
import time
import warnings

import numpy as np
import timm
import torch
import transformers as T

IMAGES = """
    tf_efficientnetv2_b0 efficientnet_b0 mixnet_s ghostnet_100 ghostnetv2_100 convnext_atto convnextv2_atto mobilevit_xxs mobilevitv2_050
    mobilenetv4_conv_small repvgg_a0 edgenext_xx_small fastvit_t8 vit_tiny_patch16_224 deit3_small_patch16_224 levit_128s poolformer_s12 cspdarknet53
    res2net50_26w_4s tf_efficientnet_lite0 regnety_002 eca_nfnet_l0 resnest14d pvt_v2_b0 efficientformer_l1 efficientvit_b0 efficientvit_m0 tinynet_e
    lcnet_050 semnasnet_075 hrnet_w18_small dla34 vovnet39a coatnet_nano_rw_224 maxvit_rmlp_pico_rw_256 mnasnet_small spnasnet_100 rexnet_100
    tresnet_m gernet_s xcit_nano_12_p16_224 gmlp_ti16_224 mixer_s32_224 convmixer_768_32 repghostnet_050 inception_next_atto starnet_s1 repvit_m0_9
    tiny_vit_5m_224 nest_tiny volo_d1_224 cait_xxs24_224 twins_svt_small visformer_tiny skresnet18 seresnet18 selecsls42 hardcorenas_a fbnetc_100
    resnetv2_50 bat_resnext26ts botnet26t_256 halonet26t lambda_resnet26t focalnet_tiny_srf hgnet_tiny hgnetv2_b0 rdnet_tiny mambaout_femto
    swiftformer_xs shvit_s1 davit_tiny sequencer2d_s beit_base_patch16_224 eva02_tiny_patch14_224 densenet121 vgg11_bn
""".split()

TOKENS = ["input_ids", "attention_mask"]


class Only(torch.nn.Module):
    """A model that gives one of its outputs, its inputs by place."""

    def __init__(self, model, inputs, output):
        super().__init__()
        self.model, self.inputs, self.output = model, inputs, output

    def forward(self, *args):
        return getattr(self.model(**dict(zip(self.inputs, args)), return_dict=True), self.output)


def export(folder, name, make, turn):
    path = os.path.join(folder, name + ".onnx")
    if os.path.exists(path):
        return
    start = time.time()
    try:
        model, args, inputs = make()
        model.eval()
        for m in model.modules():
            if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)
        with torch.no_grad():
            if turn:
                torch.onnx.export(model, args, path, dynamo=True, input_names=inputs, output_names=["y"], external_data=False, verbose=False)
            else:
                torch.onnx.export(model, args, path, dynamo=False, opset_version=17, input_names=inputs, output_names=["y"])
    except Exception as e:  # of any model: the next one may be well
        if os.path.exists(path):
            os.remove(path)
        print("left out", name, type(e).__name__, " ".join(str(e).split())[:120], flush=True)
        return
    np.savez(path.removesuffix(".onnx") + ".npz", **{n: a.numpy() for n, a in zip(inputs, args)})
    print(f"{name}: {os.path.getsize(path) >> 20} MiB, {time.time() - start:.0f} s", flush=True)


def image(name):
    def make():
        model = timm.create_model(name, pretrained=False)
        return model, (torch.randn(1, *model.default_cfg.get("input_size", (3, 224, 224))),), ["x"]

    return make


def small(config, **more):
    sizes = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 512, "vocab_size": 1000}
    return config(**{**sizes, **more})


def words():
    return torch.randint(0, 500, (1, 48)), torch.ones(1, 48, dtype=torch.int64)


def encoder(kind, **more):
    def make():
        model = getattr(T, kind + "Model")(small(getattr(T, kind + "Config"), **more))
        return Only(model, TOKENS, "last_hidden_state"), words(), TOKENS

    return make


def one(model, args, name, output):
    return lambda: (Only(model(), [name], output), (args(),), [name])


TEXTS = {
    **{k.lower(): encoder(k) for k in ("Bert", "Electra", "DebertaV2", "RoFormer", "MegatronBert", "Ernie", "IBert")},
    **{k.lower(): encoder(k, max_position_embeddings=130) for k in ("Roberta", "Camembert", "XLMRoberta", "MPNet")},
    **{k.lower(): encoder(k, use_cache=False) for k in ("Llama", "Phi", "GPTNeoX", "Falcon", "Olmo", "Starcoder2")},
    "opt": encoder("OPT", use_cache=False, ffn_dim=512, word_embed_proj_dim=192),
    "t5": lambda: (
        Only(T.T5EncoderModel(T.T5Config(d_model=192, d_ff=512, num_layers=3, num_heads=6, d_kv=32, vocab_size=1000)), TOKENS, "last_hidden_state"), words(), TOKENS),
    "gpt2": one(lambda: T.GPT2Model(T.GPT2Config(n_embd=192, n_layer=3, n_head=6, vocab_size=1000, use_cache=False)), lambda: words()[0], "input_ids", "last_hidden_state"),
    "mamba": one(lambda: T.MambaModel(T.MambaConfig(hidden_size=96, num_hidden_layers=2, vocab_size=500, use_cache=False)), lambda: words()[0][:, :16], "input_ids", "last_hidden_state"),
    "wav2vec2": one(
        lambda: T.Wav2Vec2Model(T.Wav2Vec2Config(hidden_size=192, num_hidden_layers=3, num_attention_heads=6, intermediate_size=512, conv_dim=(128,) * 7)),
        lambda: torch.randn(1, 16000), "input_values", "last_hidden_state"),
    "clip": one(
        lambda: T.CLIPVisionModel(T.CLIPVisionConfig(hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=6)),
        lambda: torch.randn(1, 3, 224, 224), "pixel_values", "last_hidden_state"),
    "segformer": one(lambda: T.SegformerForSemanticSegmentation(T.SegformerConfig()), lambda: torch.randn(1, 3, 256, 256), "pixel_values", "logits"),
    "dpt": one(
        lambda: T.DPTForDepthEstimation(T.DPTConfig(
            hidden_size=192, num_hidden_layers=4, num_attention_heads=6, intermediate_size=512, image_size=224, backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[48, 96, 192, 192], fusion_hidden_size=64)),
        lambda: torch.randn(1, 3, 224, 224), "pixel_values", "predicted_depth"),
}


def main(folder):
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    torch.manual_seed(0)
    os.makedirs(folder, exist_ok=True)
    for i, (name, make) in enumerate(TEXTS.items()):
        export(folder, name, make, i % 2)
    for i, name in enumerate(IMAGES):
        export(folder, name, image(name), i % 3 == 2)


if __name__ == "__main__":
    main(sys.argv[1])
